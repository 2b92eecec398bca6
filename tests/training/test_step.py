"""The training step against the same method written with ordinary modules, torch.optim.SGD and autograd."""

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from penalty import penalty
from tiny import thin_networks
from torch import Tensor, nn

from us3l.data.stream import Shard
from us3l.losses.registry import Target, loss
from us3l.models.backbones.backbone import Backbone
from us3l.models.batch_norms import BatchNorm, batch_norm_parameters
from us3l.models.heads import Head, Network, Output
from us3l.params.runs import PretrainRun, Resources
from us3l.training.build import build_train_step
from us3l.training.micro_batches import CACHE, MicroBatching, micro_batching_on, one_by_one
from us3l.training.step import TrainStep, feature_std
from us3l.utils.distributed import World
from us3l.utils.errors import UserError

CPU = torch.device("cpu")
WIDTHS = ([1.0], [1.0, 0.61, 0.37], [1.0, 0.8, 0.25])
GROUPS = {"kind": "group", "strength": 0.01, "alpha": 0.1}


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    thin_networks(monkeypatch)


def run(name: str, base: str, size: int = 16, shards: int = 2, **changes: Any) -> PretrainRun:
    """A small run with strong decay; `changes` are of the method, or of the run where it has such a key."""
    method = {"name": name, "base_loss": base, "projector": {"hidden": 12, "output": 8}, "momentum": 0.8}
    if {base, changes.get("distillation")} & {"infonce", "nt-xent"}:
        method["temperature"] = 0.3
    record = {
        "dataset": "noise",
        "backbone": "small-resnet",
        "epochs": 6,
        "batch": {"size": size, "shards": shards},
        "optimizer": {"lr": 1.0, "momentum": 0.7, "weight_decay": 0.05},
    }
    of_run = {key: value for key, value in changes.items() if key in PretrainRun.model_fields}
    of_method = {key: value for key, value in changes.items() if key not in of_run}
    return PretrainRun.model_validate(record | of_run | {"method": method | of_method})


def train_step(
    of: PretrainRun, seed: int = 0, listen: Any = lambda gradients: None, micro_batching: MicroBatching | None = None
) -> TrainStep:
    """The step of a run; `listen` is given the gradients of each width, to be added up over all processes."""
    made = build_train_step(of, Backbone(of.backbone, 3), 5, seed, World(0, 1, CPU), micro_batching=micro_batching)
    made.all_reduce_ = listen
    return made


def shards(number: int, count: int = 2, size: int = 8) -> list[Shard]:
    """`count` shards of two views of noise, with labels 0 ... 4."""
    generator = torch.Generator().manual_seed(number)
    views = torch.randn(count, 2, size, 3, 8, 8, generator=generator)
    labels = torch.randint(5, (count, size), generator=generator)
    return [Shard((one, other), index, labels[index]) for index, (one, other) in enumerate(views)]


class Plain:
    """The method with one module for the widest network, one for its teacher, and copies cut from them."""

    def __init__(self, of: PretrainRun, weights: dict[str, Tensor]) -> None:
        self.run, self.method, self.widest = of, of.method, of.sampling.range[1]
        self.online = self.network(self.widest, weights)
        self.teacher = deepcopy(self.online)
        settings = of.optimizer
        self.optimizer = torch.optim.SGD(
            self.online.parameters(), 1.0, settings.momentum, weight_decay=settings.weight_decay
        )

    def network(self, width: float, weights: dict[str, Tensor]) -> Network:
        build = Backbone("small-resnet", 3).build
        made = Network(build(width), self.method, build(self.widest))
        for name, p in made.named_parameters():
            p.data = weights[name].detach()[leading(p)].clone()
        return made

    def cut(self, module: nn.Module, width: float) -> Network:
        return self.network(width, dict(module.named_parameters()))

    def step(self, batch: list[Shard], widths: list[float], epoch: int, lr: float) -> list[float]:
        losses, targets = [], []
        every_width = self.method.momentum_update == "every-width"
        for width in widths:
            widest = width == widths[0]
            if self.method.momentum is not None and (widest or every_width):
                self.move_teacher(self.method.momentum)
            network = self.cut(self.online, width)
            outputs = [[network(view, None) for view in shard.views] for shard in batch]
            own = widest or not self.method.distillation_loss
            if own:
                targets = self.targets(batch, outputs, width)
            head = network.predictor if widest or every_width else network.distillation_predictor
            values = []
            for student, teacher in zip(outputs, targets, strict=True):
                predictions = tuple(head(each.projection) for each in student)
                projections = tuple(each.projection.detach() for each in teacher)
                name = self.method.base_loss if own else self.method.distillation_loss
                values.append(loss(name, predictions, target(projections), self.method))
                if self.method.feature_distillation and not own:
                    values[-1] = 0.7 * values[-1] + 0.3 * self.features(network, student, teacher)
            mean = sum(values) / len(values)
            mean.backward()
            self.move(network, width, epoch, lr)
            losses.append(mean.item())
        return losses

    def features(self, network: Network, student: list[Any], teacher: list[Any]) -> Tensor:
        """The squared error between projected maps of one view and the teacher's of the other."""
        errors = [
            nn.functional.mse_loss(projection(mine), other.detach())
            for one, two in ((0, 1), (1, 0))
            for projection, mine, other in zip(
                network.feature_projections, student[one].maps, teacher[two].maps, strict=True
            )
        ]
        return sum(errors) / len(errors)

    def targets(self, batch: list[Shard], outputs: list[list[Any]], width: float) -> Any:
        if self.method.momentum is None:
            return outputs
        teacher = self.cut(self.teacher, self.widest if self.method.distillation_loss else width)
        return [[teacher(view, None) for view in shard.views] for shard in batch]

    def move_teacher(self, momentum: float) -> None:
        for p, online in zip(self.teacher.parameters(), self.online.parameters(), strict=True):
            p.data = momentum * p.data + (1 - momentum) * online.data

    def move(self, network: Network, width: float, epoch: int, lr: float) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        for name, p in network.named_parameters():
            if p.grad is not None:
                wide = self.online.get_parameter(name)
                wide.grad = torch.zeros_like(wide) if wide.grad is None else wide.grad
                wide.grad[leading(p)] = p.grad
        if self.run.regularizer:
            trainable = [
                (name, p) for name, p in self.online.named_parameters() if p.requires_grad and "feature" not in name
            ]
            norms = batch_norm_parameters(self.online, BatchNorm)
            penalty(trainable, self.run.regularizer, epoch, self.run.epochs, width, norms).backward()
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()


def target(projections: tuple[Tensor, ...]) -> Target:
    """Nothing but the teacher's embeddings of both views."""
    return Target(dict(enumerate(projections)), [], None, {}, 0, None, None, 0.0)


def leading(p: Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in p.shape)


NO_TEACHER = {"momentum": None}
FEATURES = {
    "feature_distillation": {"layers": ["layer2", "layer3.0.bn1"], "strength": 0.3},
    "distillation_strength": 0.7,
}
CASES = {
    "us3l": run("simclr", "infonce", regularizer=GROUPS, optimizer={"lr": 1.0}),
    "us3l-exponential": run("byol", "cosine", regularizer=GROUPS | {"decay": "exponential"}, optimizer={"lr": 1.0}),
    "l2": run("byol", "cosine", regularizer={"kind": "l2", "strength": 0.01}, optimizer={"lr": 1.0}),
    "l1": run("byol", "cosine", regularizer={"kind": "l1-batchnorm", "strength": 0.01}, optimizer={"lr": 1.0}),
    "byol-own-head": run("byol", "cosine"),
    "byol-shared-head": run("byol", "cosine", distillation_head="shared"),
    "simsiam": run("simsiam", "cosine", **NO_TEACHER),
    "simclr-no-teacher": run("simclr", "nt-xent", **NO_TEACHER),
    "teacher-moves-at-every-width": run("byol", "cosine", distillation_loss="infonce", momentum_update="every-width"),
    "features": run("simclr", "infonce", **FEATURES),
    "features-group": run("byol", "cosine", regularizer=GROUPS, optimizer={"lr": 1.0}, **FEATURES),
    "features-no-teacher": run("simclr", "nt-xent", **FEATURES, **NO_TEACHER),
    "kl": run("byol", "cosine", distillation_loss="kl", student_temperature=0.5, teacher_temperature=0.3),
    "mse": run("byol", "cosine", distillation_loss="mse"),
    "rkd-distance": run("byol", "cosine", distillation_loss="rkd-distance"),
    "rkd-angle": run("byol", "cosine", distillation_loss="rkd-angle"),
    "similarity-matrix": run("byol", "cosine", distillation_loss="similarity-matrix"),
    "no-distillation": run("byol", "cosine", distillation_loss=None, momentum_update="every-width"),
    "no-distillation-no-teacher": run("simclr", "nt-xent", distillation_loss=None, **NO_TEACHER),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("micro_batching", [MicroBatching(1, 0), MicroBatching(2, math.inf)], ids=["apart", "together"])
@pytest.mark.parametrize("of", CASES.values(), ids=CASES.keys())
def test_three_batches_give_the_losses_and_weights_of_the_plain_method(
    of: PretrainRun, micro_batching: MicroBatching
) -> None:
    ours = train_step(of, seed=1, micro_batching=micro_batching)
    plain = Plain(of, ours.student.weights.parameters)
    for number, widths in enumerate(WIDTHS):
        epoch, lr = 2 * number, 0.2 / (1 + number)
        results = ours(shards(number), widths, epoch, lr)
        assert results[:, 0].tolist() == pytest.approx(
            plain.step(shards(number), widths, epoch, lr), rel=1e-11, abs=1e-10
        )
    assert_equal(ours, plain)


@pytest.mark.usefixtures("float64")
def test_a_network_whose_widest_width_is_narrow_is_trained_alike() -> None:
    of = run("simclr", "infonce", sampling={"range": (0.25, 0.5)}, regularizer=GROUPS, optimizer={"lr": 1.0})
    ours = train_step(of)
    plain = Plain(of, ours.student.weights.parameters)
    for number in range(2):
        ours(shards(number), [0.5, 0.25], 3, 0.2)
        plain.step(shards(number), [0.5, 0.25], 3, 0.2)
    assert_equal(ours, plain)


def test_a_layer_that_the_backbone_lacks_is_named() -> None:
    with pytest.raises(UserError, match=r"feature_distillation\.layers: the backbone has no layer 'layer9'"):
        train_step(run("byol", "cosine", feature_distillation={"layers": ["layer9"]}))


def assert_equal(ours: TrainStep, plain: Plain) -> None:
    for name, p in plain.online.named_parameters():
        torch.testing.assert_close(ours.student.weights.parameters[name], p.data, rtol=0, atol=1e-10, msg=name)
    if plain.method.momentum is not None:
        for name, p in ours.student.weights.views(ours.teacher.momentum_encoder).items():
            torch.testing.assert_close(p, plain.teacher.get_parameter(name).data, rtol=0, atol=1e-10, msg=name)


def gradient_of(of: PretrainRun, batch: list[Shard]) -> Tensor:
    """The gradient of the first step, as one process hands it over to be added up over all."""
    seen = []
    train_step(of, listen=lambda gradients: seen.append(gradients.clone()))(batch, [1.0], 0, 0.1)
    return seen[0]


@pytest.mark.usefixtures("float64")
def test_shards_give_the_mean_of_their_gradients_in_however_many_processes() -> None:
    batch, four = shards(0, count=4, size=4), run("simclr", "infonce", shards=4)
    one = run("simclr", "infonce", size=4, shards=1)
    together = gradient_of(four, batch)
    mean = torch.stack([gradient_of(one, [shard]) for shard in batch]).mean(0)
    torch.testing.assert_close(together, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient_of(four, batch[:2]) + gradient_of(four, batch[2:]), mean, rtol=0, atol=1e-12)
    assert mean.abs().max() > 1e-3


@pytest.mark.usefixtures("float64")
def test_the_momentum_encoder_moves_once_a_batch_towards_the_weights_before_it() -> None:
    ours = train_step(run("byol", "cosine"))
    ours(shards(0), [1.0, 0.5, 0.25], 0, 0.1)
    before = ours.teacher.momentum_encoder.clone()
    weights = ours.student.weights.values[: len(before)].clone()
    ours(shards(1), [1.0, 0.5, 0.25], 0, 0.1)
    torch.testing.assert_close(ours.teacher.momentum_encoder, 0.8 * before + 0.2 * weights, rtol=0, atol=1e-14)
    assert (before - weights).abs().max() > 1e-3


def test_a_head_stands_still_until_its_first_gradient_and_then_moves_in_every_step() -> None:
    ours = train_step(run("byol", "cosine"))

    def moves(head: Head, widths: list[float]) -> bool:
        before = {name: p.clone() for name, p in ours.student.weights.parameters.items() if name.startswith(head)}
        ours(shards(0), widths, 0, 0.1)
        return any(not torch.equal(ours.student.weights.parameters[name], old) for name, old in before.items())

    assert not moves("distillation_predictor", [1.0])
    assert moves("predictor", [1.0])
    assert moves("distillation_predictor", [1.0, 0.5])
    assert moves("distillation_predictor", [1.0])


IN_BFLOAT16 = CASES["us3l"].model_copy(update={"precision": "bfloat16"})


@pytest.mark.parametrize("of", [CASES["us3l"], CASES["byol-own-head"], CASES["simsiam"], IN_BFLOAT16])
def test_a_step_that_loads_anothers_state_continues_bitwise_like_it(of: PretrainRun) -> None:
    first, second = train_step(of, seed=0), train_step(of, seed=1)
    for number, widths in enumerate([[1.0], [1.0, 0.5, 0.25]]):
        first(shards(number), widths, number, 0.1)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    results = [each(shards(2), [1.0, 0.7, 0.25], 4, 0.1) for each in (first, second)]
    assert torch.equal(*results)
    for name, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_a_new_step_is_continued_like_one_that_was_saved_before_its_first_step() -> None:
    first, second = train_step(CASES["byol-own-head"], seed=0), train_step(CASES["byol-own-head"], seed=1)
    second.load_state(first.state())
    for each in (first, second):
        each(shards(0), [1.0, 0.5], 0, 0.1)
    assert torch.equal(first.student.weights.values, second.student.weights.values)


def test_bfloat16_gives_nearly_the_losses_and_gradients_of_float32_and_keeps_the_weights_in_float32() -> None:
    losses, gradients = [], []
    for precision in ("float32", "bfloat16"):
        ours = train_step(run("simclr", "infonce", precision=precision), listen=lambda g: gradients.append(g.clone()))
        losses.append(ours(shards(0), [1.0, 0.5], 0, 1e-6)[:, 0])
        assert ours.student.weights.values.dtype == torch.float32
    assert 0 < (losses[0] - losses[1]).abs().max() < 0.01
    for width in range(2):
        assert torch.cosine_similarity(gradients[width], gradients[2 + width], dim=0) > 0.9


@pytest.mark.usefixtures("float64")
def test_only_the_gradients_of_a_widths_own_channels_are_added_up_over_the_processes() -> None:
    sizes = []
    ours = train_step(CASES["byol-own-head"], listen=lambda gradients: sizes.append(gradients.numel()))
    ours(shards(0), [1.0, 0.5], 0, 0.1)
    for width, size in zip([1.0, 0.5], sizes, strict=True):
        assert size == sum(p.numel() for p in ours.student.network.meta_module(width).parameters())
    assert sizes[1] < sizes[0] / 2


def test_a_gpu_sees_a_whole_batch_and_a_cpu_one_shard_at_a_time() -> None:
    of = run("simclr", "infonce", size=32, shards=4)
    gpu, few = torch.device("cuda"), of.model_copy(update={"resources": Resources(shards_at_once=2)})
    own = of.model_copy(update={"backbone": "networks.mine:tiny"})
    on = lambda device, run: micro_batching_on(device, run, Backbone(run.backbone, 3))  # noqa: E731
    assert on(gpu, of) == MicroBatching(4, math.inf) and on(gpu, few) == MicroBatching(2, math.inf)
    assert on(CPU, of) == on(CPU, few) == MicroBatching(1, CACHE)
    assert on(CPU, own) == on(gpu, own) == MicroBatching(1, 0)


@pytest.mark.parametrize(("size", "seen"), [(64, [(128, 2)]), (65, [(65, 1), (65, 1)])])
def test_views_go_together_where_a_cache_holds_them(size: int, seen: list[tuple[int, int]]) -> None:
    calls = []

    def encode(images: Tensor, groups: int) -> Output:
        calls.append((len(images), groups))
        return Output(images.flatten(1), images.flatten(1), [])

    views = [torch.full((size, 1, 8, 8), float(view)) for view in range(2)]
    outputs = MicroBatching(1, CACHE).encode(encode, [[view] for view in views])
    assert calls == seen
    assert [output.projection.unique().tolist() for output in outputs] == [[0.0], [1.0]]


def test_a_network_that_does_not_keep_groups_apart_sees_them_one_by_one() -> None:
    def encode(images: Tensor, groups: int) -> Output:
        assert groups == 1
        centred = images - images.mean(0)
        return Output(centred, centred, [])

    images = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    projection = one_by_one(encode)(images, 2).projection
    assert torch.equal(projection, torch.cat([each - each.mean(0) for each in images.chunk(2)]))


def test_the_spread_is_one_for_random_directions_and_zero_for_equal_ones() -> None:
    noise = torch.randn(1, 4096, 256, generator=torch.Generator().manual_seed(0))
    assert feature_std(noise * 7).item() == pytest.approx(1, abs=0.01)
    assert feature_std(noise[:, :1].expand(1, 64, -1)).item() == pytest.approx(0, abs=1e-6)


def test_equal_images_have_no_spread_and_different_ones_have() -> None:
    different = shards(0)
    equal = [shard._replace(views=tuple(view[:1].expand_as(view) for view in shard.views)) for shard in different]
    ours = train_step(run("byol", "cosine"))
    assert ours(different, [1.0, 0.5], 0, 1e-9)[:, 1].min() > 0.3
    assert ours(equal, [1.0, 0.5], 0, 1e-9)[:, 1].max() < 1e-3
