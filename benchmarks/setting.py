"""The setting of a benchmark: the run, the device and the sizes."""

import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from us3l.data.store import Split, Store
from us3l.params.dataset import Views
from us3l.params.protocols.linear import Linear
from us3l.params.runs import Batch, PretrainRun
from us3l.params.sampling import Sampling
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan
from us3l.utils.errors import UserError

IMAGE_SIZE = 32  # height and width of the images
CLASSES = 100
OFFICIAL_STEPS = 97  # whole batches of 512 in CIFAR-100's 50,000 images


@dataclass(frozen=True)
class Setting:
    """A run of the params file, on noise of CIFAR's size.

    batch: images of a step; images: images of the parts that measure no step.
    """

    plan: RunPlan
    device: torch.device
    threads: int
    repeats: int
    batch: int
    images: int
    seed: int = 0

    @cached_property
    def run(self) -> PretrainRun:
        """The run with this batch, in shards of the run's own size if that divides it; on a CPU in float32."""
        run = self.plan.run
        assert isinstance(run, PretrainRun)  # as `setting` requires
        own = run.batch.size // run.batch.shards
        shards = self.batch // own if self.batch % own == 0 else 1
        precision = run.precision if self.device.type == "cuda" else "float32"
        return run.model_copy(update={"batch": Batch(size=self.batch, shards=shards), "precision": precision})

    @property
    def views(self) -> Views:
        return self.plan.data.dataset.views

    @property
    def sampling(self) -> Sampling:
        assert isinstance(self.run.sampling, Sampling)  # as `setting` requires
        return self.run.sampling

    @property
    def protocol(self) -> Linear:
        assert isinstance(self.plan.protocol, Linear)  # as `setting` requires
        return self.plan.protocol

    @property
    def workers(self) -> int:
        """Processes that load images in the straightforward way, so that both ways use the same number of cores."""
        return self.threads if self.threads > 1 else 0

    def store(self, images: int) -> Store:
        """Draw a data set of noise in memory, with a test set of as many images."""
        draw = np.random.default_rng(0)
        channels = self.plan.data.dataset.channels

        def split() -> Split:
            pixels = draw.integers(0, 256, (images, IMAGE_SIZE, IMAGE_SIZE, channels), np.uint8)
            return Split(pixels, draw.integers(0, CLASSES, images))

        return Store(split(), split(), tuple(map(str, range(CLASSES))), "noise")


def setting(
    plan: Plan,
    run: str,
    device: torch.device,
    threads: int | None,
    repeats: int,
    batch: int | None,
    images: int | None,
) -> Setting:
    """Return the setting of the run STUDY/RUN; what is None depends on the device.

    Raises UserError if params.yaml has no such run, or if the straightforward way does not implement it.
    """
    study, _, name = run.partition("/")
    chosen, on_gpu = plan.run(study, name), device.type == "cuda"
    if not (isinstance(chosen.run, PretrainRun) and chosen.protocol.kind == "linear" and _is_comparable(chosen.run)):
        what = "simclr or byol with a momentum encoder, dynamic sampling to full width, SGD and the group regularizer"
        raise UserError(f"{plan.file}: bench measures runs of {what}, evaluated by linear; {run} is none")
    threads = threads or ((os.cpu_count() or 1) if on_gpu else 1)
    torch.set_num_threads(threads)
    batch = batch or (chosen.run.batch.size if on_gpu else 64)
    return Setting(chosen, device, threads, repeats, batch, images or (25_600 if on_gpu else 512))


def _is_comparable(run: PretrainRun) -> bool:
    """Tell whether `benchmarks.straightforward` implements a run."""
    method, sampling, regularizer = run.method, run.sampling, run.regularizer
    return (
        method.name in ("simclr", "byol")
        and {method.base_loss, method.distillation_loss} <= {"infonce", "cosine"}
        and (method.momentum or 0) > 0
        and (method.momentum_schedule, method.momentum_update) == ("constant", "widest")
        and method.feature_distillation is None
        and isinstance(sampling, Sampling)
        and (sampling.rule, sampling.schedule, sampling.widest) == ("sandwich", "dynamic", 1.0)
        and run.optimizer.kind == "sgd"
        and (regularizer is not None and regularizer.kind == "group" and regularizer.by == "output-channel")
    )
