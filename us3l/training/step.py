"""The method on one page: one training step of US3L (Cao, Sun, Zhou, CVPR 2023, section 3; official workers/ssl.py).

A step sees the widths that dynamic sampling chose (`us3l.training.width_sampling`), widest first. Each width w is the
leading part of one copy of weights q (`us3l.models.slimmable`) and takes a step of its own:

1. Teacher: k <- m k + (1 - m) q, once a batch, before the widest network's step. k runs at full width; its embeddings
   are the targets of all widths, which is what keeps the guidance consistent (`us3l.training.teacher`).
2. Loss: the widest network takes the base loss L_base(q, k), every narrower one the distillation loss
   strength * L_distill(q_w, k) and, where the method has it, that of the feature maps (`us3l.losses`).
3. Group regularization: the gradient of sum_g lambda_g |q_g|^2 on all of q, whatever w, with lambda_g falling from the
   first channels, which every width has, to the last (`us3l.training.regularizer`).
4. Optimizer: one step on all of q (`us3l.training.optimizers`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from us3l.data.stream import Shard
from us3l.losses.feature_maps import FEATURE_LOSSES
from us3l.losses.registry import Target, at_least_float32, loss, student_views
from us3l.models.heads import Head, Output, project_maps
from us3l.params.runs import PretrainRun
from us3l.training.flat_parameters import pack_grads, pairwise_sum
from us3l.training.micro_batches import MicroBatch, MicroBatching
from us3l.training.optimizers import FlatOptimizer
from us3l.training.regularizer import Decay, add_gradient
from us3l.training.student import Student
from us3l.training.teacher import Teacher


class TrainStep:
    """The training step of a run; `with_grad` names the parameters that have had a gradient.

    all_reduce_: adds a tensor up over all processes, in place.
    """

    def __init__(
        self,
        run: PretrainRun,
        student: Student,
        teacher: Teacher,
        optimizer: FlatOptimizer,
        micro_batching: MicroBatching,
        all_reduce_: Callable[[Tensor], None],
    ) -> None:
        self.run, self.method = run, run.method
        self.student, self.teacher, self.optimizer = student, teacher, optimizer
        self.micro_batching, self.all_reduce_ = micro_batching, all_reduce_
        self.decay = Decay(run, student.weights, student.batch_norms)
        self.with_grad: set[str] = set()

    def __call__(self, shards: Sequence[Shard], widths: Sequence[float], epoch: float, lr: float) -> Tensor:
        """Train on this process's shards. epoch: number of epochs done, with the done part of this one.

        Returns [widths, 2]: the loss without regularizer, and the standard deviation of the embeddings, as this
        process's share of the mean over all shards (their sum over the processes is the mean).
        """
        micro_batches = self.micro_batching.split(shards)
        targets: list[Target] = []
        widest_targets: list[Target] = []
        results = []
        for width in widths:
            is_widest = width == widths[0]
            distillation_loss = None if is_widest else self.method.distillation_loss
            moves_teacher = is_widest or self.method.momentum_update == "every-width"
            if moves_teacher:
                self.teacher.update_momentum_encoder(epoch)
            if distillation_loss is None:
                with self._precision():
                    targets = self.teacher.targets(micro_batches, width, epoch)
            head: Head = "predictor" if moves_teacher else "distillation_predictor"
            gradients, result = self._backward(micro_batches, width, head, targets, distillation_loss, epoch)
            self._update(gradients, int(epoch), width == 1.0, lr)
            results.append(result)
            widest_targets = widest_targets or targets
        self.teacher.remember(widest_targets)
        return torch.stack(results)

    def _backward(
        self,
        micro_batches: Sequence[MicroBatch],
        width: float,
        head: Head,
        targets: list[Target],
        distillation_loss: str | None,
        epoch: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients [P] of one width, over all processes, and this one's share of loss and feature_std [2].

        distillation_loss: None where the width takes the base loss. Where the student is its own teacher, this adds
        the missing targets.
        """
        slices = self.student.network.slices(width)
        leaves = self.student.weights.leaves(slices)
        gradients, results = [], []
        for index, micro_batch in enumerate(micro_batches):
            with self._precision():
                outputs = self._outputs(micro_batch, leaves, width, head, distillation_loss)
                if len(targets) == index:
                    targets.append(self.teacher.to_target(micro_batch, outputs, epoch))
            share = len(micro_batch) / self.run.batch.shards
            value = self._loss(outputs, targets[index], distillation_loss, len(micro_batch)) * share
            value.backward()
            self.with_grad |= {name for name, leaf in leaves.items() if leaf.grad is not None}
            gradients.append(pack_grads(leaves.values()))
            projections = outputs[0].projection.unflatten(0, (len(micro_batch), -1))
            results.append(torch.stack((value.detach(), feature_std(projections) * share)))
        packed = pairwise_sum(gradients)
        self.all_reduce_(packed)
        return self.student.weights.scatter_grads(packed, slices), pairwise_sum(results)

    def _outputs(
        self,
        micro_batch: MicroBatch,
        leaves: dict[str, Tensor],
        width: float,
        head: Head,
        distillation_loss: str | None,
    ) -> list[Output]:
        """Run the network of a width on each view that its losses read."""
        if distillation_loss is None:
            views = student_views(self.method.base_loss)
        else:
            views = range(2) if self.method.feature_distillation else student_views(distillation_loss)
        network = self.student.network
        encoder = lambda images, groups: network(leaves, width, images, head, groups=groups)  # noqa: E731
        outputs = self.micro_batching.encode(encoder, [[shard.views[view] for shard in micro_batch] for view in views])
        if distillation_loss is None or not self.method.feature_distillation:
            return outputs
        return [output._replace(maps=project_maps(leaves, output.maps)) for output in outputs]

    def _loss(self, outputs: list[Output], target: Target, distillation_loss: str | None, shards: int) -> Tensor:
        """Compute the base loss, or the distillation losses, against the target."""
        method = self.method
        student = at_least_float32(output.prediction.unflatten(0, (shards, -1)) for output in outputs)
        if distillation_loss is None:
            return loss(method.base_loss, student, target, method)
        value = method.distillation_strength * loss(distillation_loss, student, target, method)
        if method.feature_distillation:
            feature_loss = FEATURE_LOSSES[method.feature_distillation.loss]
            maps = [at_least_float32(output.maps) for output in outputs]
            teacher = [at_least_float32(of_view) for of_view in target.maps]
            value = value + method.feature_distillation.strength * feature_loss(maps, teacher)
        return value

    def _update(self, gradients: Tensor, epoch: int, full_width: bool, lr: float) -> None:
        """Regularize and update the whole of the weights, whatever the width."""
        weights = self.student.weights
        decay: Tensor | None
        decay, decayed = self.decay.at(epoch, full_width, self.with_grad)
        if self.run.regularizer:
            add_gradient(gradients, decay, weights.values, self.run.regularizer)
            self.with_grad |= decayed
            decay = None
        with_grad = [index for index, name in enumerate(weights.shapes) if name in self.with_grad]
        self.optimizer.step(weights.values, gradients, decay, lr, with_grad)

    def _precision(self) -> torch.autocast:
        is_bfloat16 = self.run.precision == "bfloat16"
        return torch.autocast(self.student.weights.values.device.type, dtype=torch.bfloat16, enabled=is_bfloat16)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the next step depends on, by name."""
        return {
            "values": self.student.weights.values,
            "with_grad": torch.tensor([name in self.with_grad for name in self.student.weights.shapes]),
            **self.optimizer.state,
            **self.teacher.state(),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self.decay.forget()
        names = self.student.weights.shapes
        self.with_grad = {name for name, has in zip(names, state["with_grad"].tolist(), strict=True) if has}


def feature_std(embeddings: Tensor) -> Tensor:
    """Return how far normalized embeddings [S, B, D] spread: 1 if evenly over the sphere, 0 if they have collapsed.

    It is the mean over shards and dimensions of the standard deviation, times sqrt(D) (SimSiam, arXiv 2011.10566,
    section 4.1).
    """
    normalized = F.normalize(embeddings.detach().float(), dim=2)
    return normalized.std(1).mean() * embeddings.shape[2] ** 0.5
