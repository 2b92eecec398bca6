"""The monitor of a training: every few epochs, whether three of its widths learn something."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from us3l.data.store import Store
from us3l.evaluation.monitor import look
from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import backbone_weights
from us3l.models.slimmable import narrow, switch_batch_norms
from us3l.params.dataset import Views
from us3l.params.runs import Monitor
from us3l.params.sampling import AnySampling, FixedWidths
from us3l.pipeline.probes.sample import sample, sample_widths
from us3l.training.trainer import COLLAPSED, Trainer
from us3l.utils.errors import UserError
from us3l.utils.records import read_record, write_record

TRAIN, TEST = 1024, 512  # images, of each split


class MonitorWatcher:
    """Looks at a training every few epochs, and keeps what it sees in `file`, through any interruption.

    It draws no random numbers of the training, and touches no weights: these are the same with it and without.
    """

    def __init__(
        self,
        settings: Monitor,
        trainer: Trainer,
        backbone: Backbone,
        store: Store,
        views: Views,
        file: Path,
        print_line: Callable[[str], None],
    ) -> None:
        self._settings, self._trainer, self._backbone, self._views = settings, trainer, backbone, views
        self._store, self._file, self._print = sample(store, TRAIN, TEST), file, print_line
        found = read_record(file)["monitor"] if file.is_file() else []
        self.looks: list[dict[str, Any]] = [each for each in found if each["epoch"] < trainer.epoch]
        if len(store.classes) < 2:
            print_line(
                "monitor: no nearest neighbours, since the images have no labels; effective rank and spread alone"
            )

    def step(self) -> None:
        pass

    def epoch(self) -> None:
        done, run = self._trainer.epoch, self._trainer.run
        if done % self._settings.every == 0 or done == run.epochs:
            self._look(done - 1)
        spread = min(self._trainer.history[-1]["feature_std"])
        if self._settings.stop_on_collapse and spread < COLLAPSED:
            raise UserError(
                f"{self._trainer.label}: the embeddings have collapsed in epoch {done}, to a spread of {spread:.3f}; "
                "take another method or a lower optimizer.lr, or leave monitor.stop_on_collapse out to go on"
            )

    def _look(self, epoch: int) -> None:
        widths, device = monitored_widths(self._trainer.run.sampling), self._trainer.world.device
        weights = backbone_weights(self._trainer.train_step.student.weights.parameters)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            networks = [narrow(switch_batch_norms(weights, width), self._backbone.build(width)) for width in widths]
            seen = look([network.to(device) for network in networks], self._store, self._views, device)
        self.looks.append({"epoch": epoch, "widths": widths, **seen})
        write_record(self._file, {"monitor": self.looks})
        described = ", ".join(
            f"{width:g}x {' '.join(f'{name} {values[index]:.3g}' for name, values in seen.items())}"
            for index, width in enumerate(widths)
        )
        self._print(f"monitor, epoch {epoch + 1}: {described}")


def monitored_widths(sampling: AnySampling) -> list[float]:
    """Return the widest, a middle and the narrowest width of a training."""
    if isinstance(sampling, FixedWidths):
        return sample_widths(sampling.widths)[::-1]
    low, high = sampling.range
    return sample_widths([low, (low + high) / 2, high])[::-1]
