"""What a GPU computes, against the same on the CPU. Skipped where there is no GPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import on_gpu
from image_files import write
from project import RUN, Project, params
from sources import files
from torch import Tensor

from us3l.data.augment.views import augment
from us3l.data.decoded import Decoded
from us3l.data.stream import Shard
from us3l.models.backbones.backbone import Backbone
from us3l.params.dataset import Affine, Augmentation, Blur, ColorJitter, Normalize, ResizedCrop, Solarize
from us3l.params.runs import PretrainRun
from us3l.training.build import build_train_step
from us3l.utils.distributed import World
from us3l.utils.philox import Purpose, RandomKey, permutation, uniform

GPU = torch.device("cuda")
CPU = torch.device("cpu")

EVERYTHING = Augmentation(
    resized_crop=ResizedCrop(size=24, scale=(0.2, 1.0), interpolation="bicubic"),
    affine=Affine(degrees=20.0, translate=0.1, scale=(0.8, 1.2)),
    color_jitter=ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
    grayscale=0.2,
    blur=Blur(kernel_size=5),
    flip=0.5,
    solarize=Solarize(),
)


@on_gpu
def test_random_numbers_are_the_same_bits() -> None:
    samples = torch.arange(1000)
    ours = uniform(RandomKey(3, Purpose.AUGMENT, 1), samples.to(GPU), 1, 9)
    assert torch.equal(ours.cpu(), uniform(RandomKey(3, Purpose.AUGMENT, 1), samples, 1, 9))
    assert torch.equal(
        permutation(RandomKey(0, Purpose.ORDER, 2), 999, GPU).cpu(),
        permutation(RandomKey(0, Purpose.ORDER, 2), 999, CPU),
    )


@on_gpu
def test_views_are_the_cpus_within_rounding() -> None:
    images = torch.randint(0, 256, (64, 32, 32, 3), generator=torch.manual_seed(0)).byte()

    def view(device: torch.device) -> Tensor:
        key, samples = RandomKey(0, Purpose.AUGMENT, 0), torch.arange(64, device=device)
        return augment(images.to(device), EVERYTHING, Normalize(mean=[0.5] * 3, std=[0.25] * 3), key, samples).cpu()

    difference = (view(GPU) - view(CPU)).abs()
    assert difference.quantile(0.999) < 1e-4  # rounding may put a pixel on the other side of solarize's threshold


@on_gpu
def test_images_in_files_are_seen_as_on_the_cpu(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.jpg" for index in range(16)]
    for index, path in enumerate(paths):
        write(path, index, 30 + index, 50 - index)
    augmentation = EVERYTHING.model_copy(update={"solarize": None})
    normalize = Normalize(mean=[0.5] * 3, std=[0.25] * 3)
    key = RandomKey(0, Purpose.AUGMENT, 0)

    def views(device: torch.device) -> Tensor:
        images, batches = Decoded(files(tmp_path, paths), device), torch.arange(16, device=device).split(5)
        return torch.cat(
            [each.cpu() for seen in images.augmented(batches, [augmentation] * 2, normalize, key) for each in seen]
        )

    torch.testing.assert_close(views(GPU), views(CPU), rtol=0, atol=1e-4)


FEATURES = {"layers": ["layer2", "layer3.0.bn2"], "strength": 0.3}
CHANGES = {
    "small-resnet": {},
    "one-shard-at-a-time": {"resources": {"shards_at_once": 1}},
    "mobilenetv2": {"backbone": "cifar-mobilenetv2"},
    "features": {"method": RUN["method"] | {"feature_distillation": FEATURES}},
}


def losses(device: torch.device, precision: str, steps: int = 20, **changes: Any) -> Tensor:
    """[steps, 3 widths]"""
    run = PretrainRun.model_validate(RUN | {"precision": precision} | changes, strict=False)
    train_step = build_train_step(run, Backbone(run.backbone, 1), 0, 0, World(0, 1, device))
    views = torch.randn(steps, 2, 2, 64, 1, 8, 8, generator=torch.manual_seed(0)).to(device)
    shards = [[Shard(tuple(shard), number) for number, shard in enumerate(step)] for step in views]
    return torch.stack([train_step(each, [1.0, 0.6, 0.25], 3, 0.05)[:, 0] for each in shards]).cpu()


def test_the_steps_that_are_compared_run_and_learn() -> None:
    on_cpu = losses(CPU, "float32")
    assert on_cpu.isfinite().all() and on_cpu[-1, 0] < on_cpu[0, 0]


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_the_other_runs_that_are_compared_run(changes: dict[str, Any]) -> None:
    assert losses(CPU, "float32", steps=1, **changes).isfinite().all()


@on_gpu
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_losses_are_the_cpus_within_rounding(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    steps = 5 if changes else 20
    ours, expected = (losses(device, "float32", steps, **changes) for device in (GPU, CPU))
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


@on_gpu
def test_a_step_never_makes_the_host_wait_for_the_gpu() -> None:
    run = PretrainRun.model_validate(RUN | {"precision": "bfloat16"}, strict=False)
    train_step = build_train_step(run, Backbone(run.backbone, 1), 0, 0, World(0, 1, GPU))
    shards = [Shard(tuple(torch.randn(2, 64, 1, 8, 8, device=GPU)), number) for number in range(2)]
    for _ in range(2):  # the first steps of an epoch compile kernels and copy the decay of each element
        train_step(shards, [1.0, 0.6, 0.25], 3, 0.05)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(shards, [1.0, 0.6, 0.25], 3, 0.05)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
def test_bfloat16_stays_close_to_float32() -> None:
    torch.testing.assert_close(losses(GPU, "bfloat16"), losses(GPU, "float32"), rtol=0.05, atol=0.05)


@on_gpu
def test_a_run_goes_through_all_stages(tmp_path: Path) -> None:
    made = Project(tmp_path, params(precision="bfloat16", resources={"gpus": 1}))
    made.must("us3l", "prepare", "digits")
    for stage in ("pretrain", "calibrate", "linear"):
        made.must("us3l", stage, "tiny", "us3l", "0", "--device", "cuda")
    evaluation = json.loads((tmp_path / "results/tiny/linear/us3l/seed0-w100.json").read_text())
    assert evaluation["hardware"]["device"].startswith("cuda") and evaluation["hardware"]["gpu"]
    assert evaluation["top1"] > 50
