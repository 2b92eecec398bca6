"""Networks of the plan's runs, to deploy at any width of the trained range."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from us3l.data.images import open_images
from us3l.data.store import Store, open_store
from us3l.deployment.config import Config
from us3l.deployment.loading import with_classifier
from us3l.deployment.network import Network
from us3l.deployment.transform import no_normalization
from us3l.evaluation.predictions import decode
from us3l.models.backbones.backbone import Backbone
from us3l.models.saved_network import open_network
from us3l.params.runs import PruneRun
from us3l.params.sampling import AnySampling
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.requirements import require_params
from us3l.pipeline.stages.calibrate import calibrated_network
from us3l.pipeline.verify.rounding import LOGITS, unexplained
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

MOST_IMAGES = 256


@dataclass(frozen=True)
class DeployedRun:
    """A run with one seed, whose networks are to be deployed."""

    plan: Plan
    run: RunPlan
    seed: int
    device: torch.device

    def network(self, width: float, with_head: bool = False) -> Network:
        """Return the study's network of a width, or calibrate one that the study does not list; nothing is written.

        Raises UserError where the run was not trained at this width, or has no classifier for it, and what calibration
        raises where checkpoint or data are missing.
        """
        self._require_trained(width)
        producer = RunStage(self.run.producer("calibrate"), "calibrate", self.seed)
        if width not in self.run.widths:
            network = Network(calibrated_network(producer, width, self.device), self._config(width))
            return self._with_head(network, width, "") if with_head else network
        path = self.run.network(self.seed, width)
        backbone, about = open_network(path)
        require_params(path, about, producer.stage_params, f"run `us3l {producer.command}`")
        network = Network(backbone, self._config(width))
        return self._with_head(network, width, about["seal"]) if with_head else network

    def untrained(self, width: float) -> Network:
        """Return a network of the architecture at a width, to see what it costs; its weights are random.

        Raises UserError where the run was not trained, or not at this width.
        """
        self._require_trained(width)
        checkpoint = self.run.checkpoint(self.seed)
        if not checkpoint.is_file():
            training = RunStage(self.run.producer("pretrain"), "pretrain", self.seed)
            raise UserError(f"{checkpoint}: not trained yet; `us3l {training.command}` trains it")
        config = self._config(width)
        return Network(Backbone(config.architecture, config.in_channels).build(width), config)

    @property
    def folder(self) -> Path:
        """Folder of its exports and measurements, where no other is asked for."""
        return Path("exports", self.run.study, self.run.name, f"seed{self.seed}")

    @property
    def sampling(self) -> AnySampling:
        """Widths that were trained."""
        return self.run.producer("pretrain").sampling

    @cached_property
    def classes(self) -> int:
        return len(self._store.classes)

    @torch.no_grad()
    def require_recorded_classes(self, network: Network, width: float) -> None:
        """Raise UserError where a network with its classifier sorts test images otherwise than the study recorded.

        Only those may differ whose two best logits are nearly equal, since the evaluation folds BatchNorms.
        """
        path = self.run.evaluation_record(self.seed, width)
        record = read_record(path)
        recorded = decode(record["predictions"], record["n"])[self._numbers]
        wrong = unexplained(recorded, network(self.test_images).double().numpy(), max(LOGITS.values()))
        if len(wrong):
            what = f"{len(wrong)} of {len(recorded)} test images get another class than {path} says"
            raise UserError(f"{self.run.study} {self.run.name} at width {width:g}: {what}; evaluate again")

    @cached_property
    def _numbers(self) -> Tensor:
        """The numbers of the test images that are looked at, evenly spaced."""
        count = len(self._store.test.labels)
        return torch.linspace(0, count - 1, min(MOST_IMAGES, count)).long()

    @cached_property
    def test_images(self) -> Tensor:
        """At most 256 test images, evenly spaced, as networks take them, [n, C, H, W] in [0, 1]."""
        images = open_images(self._store.test, torch.device("cpu"))
        view, normalize = self.run.data.dataset.views.test, no_normalization(self._store.channels)
        return torch.cat(list(images.plain([self._numbers], view, normalize)))

    @cached_property
    def _store(self) -> Store:
        return open_store(self.run.data.folder)

    def _require_trained(self, width: float) -> None:
        name = f"{self.run.study} {self.run.name}"
        if isinstance(self.run.producer("calibrate").run, PruneRun):
            raise UserError(
                f"{name}: a pruned network keeps its shape, with zeros in it: there is nothing smaller to ship"
            )
        if not self.sampling.has(width):
            raise UserError(f"{name}: trained at the widths {self.sampling}, not at {width:g}; choose one of these")

    def _with_head(self, network: Network, width: float, seal: str) -> Network:
        path = self.run.classifier(self.seed, width)
        if path not in self.run.classifiers(self.seed):
            what = f"no classifier is trained at width {width:g} by the protocol {self.run.protocol_name}"
            remedy = "leave out --head, or add the width to the study"
            raise UserError(f"{self.run.study} {self.run.name}: {what}; {remedy}")
        return with_classifier(network, seal, path)

    def _config(self, width: float) -> Config:
        dataset = self.run.data.dataset
        return Config(
            self.run.backbone,
            width,
            self._store.channels,
            dataset.views.normalize,
            image=[*self.test_images.shape[1:]],
            prepared_size=self.run.data.prepared_size,
            test_view=dataset.views.test,
            facts=self._facts(width),
        )

    def _facts(self, width: float) -> dict[str, Any]:
        """Return accuracy, costs and provenance of a width, where the study has evaluated it."""
        path = self.run.evaluation_record(self.seed, width)
        if width not in self.run.widths or not path.is_file():
            return {}
        record = read_record(path)
        accuracy = {"measure": self.run.protocol.title, "protocol": self.run.protocol_name}
        origin = {"study": self.run.study, "run": self.run.name, "seed": self.seed, "git": record["git"]}
        seals = {key: record[key] for key in ("network", "checkpoint", "data", "classifier") if key in record}
        return {
            "accuracy": accuracy | {key: record[key] for key in ("top1", "interval", "n")},
            "parameters": record["parameters"],
            "macs": record["macs"],
            "provenance": origin | seals | {"verify": self.plan.verify_command(self.run, width)},
        }
