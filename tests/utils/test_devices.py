"""The device that a command computes on, inside what Slurm has granted; no GPU is needed."""

import platform
import tempfile
from pathlib import Path

import pytest
import torch

from us3l.utils.devices import leased_device
from us3l.utils.errors import UserError


@pytest.fixture
def granted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Two GPUs, in the Slurm job 7."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    return monkeypatch


def test_a_slurm_job_with_fewer_gpus_than_asked_for_is_refused(granted: pytest.MonkeyPatch) -> None:
    said = "Slurm job 7 has 2 of the 4 GPUs asked for: submit it with --gpus=4, or give us3l --gpus 2"
    with pytest.raises(UserError, match=f"^{said}$"), leased_device("auto", 4, 1):
        pass
    granted.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(UserError, match=r"^Slurm job 7 has 0 of the 1 GPUs"), leased_device("auto", 1, 1):
        pass


@pytest.mark.parametrize("seen", [0, 1])
def test_gpus_of_a_slurm_job_that_pytorch_does_not_see_are_told(granted: pytest.MonkeyPatch, seen: int) -> None:
    granted.setattr(torch.cuda, "device_count", lambda: seen)
    said = f"PyTorch sees {seen} of the 2 GPUs that Slurm job 7 has on {platform.node()}: mend the driver or PyTorch"
    with pytest.raises(UserError, match=f"^{said}"), leased_device("auto", 2, 1):
        pass


def test_a_slurm_job_without_gpus_computes_on_the_cpu_where_none_is_asked_for(granted: pytest.MonkeyPatch) -> None:
    granted.setenv("CUDA_VISIBLE_DEVICES", "")
    for name, gpus in (("auto", 0), ("cpu", 1)):
        with leased_device(name, gpus, 1) as device:
            assert device == torch.device("cpu")
