"""Each method's training step against ordinary modules, autograd and torch.optim; all equations are written out here.

MoCo v2 and v3, SEED, supervised slimmable networks, DINO, SimSiam with a momentum encoder, BatchNorms for each width,
AdamW and sums of losses; `tests/training/test_step.py` has the others.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from penalty import penalty
from tiny import thin_networks
from torch import Tensor, nn
from torch.nn import functional as F

from us3l.data.stream import Shard
from us3l.models.backbones.backbone import Backbone
from us3l.models.heads import Output
from us3l.params.runs import PretrainRun
from us3l.training.build import build_train_step
from us3l.training.micro_batches import MicroBatching
from us3l.training.step import TrainStep
from us3l.utils import checkpoint
from us3l.utils.distributed import World

CPU = torch.device("cpu")
HIDDEN, OUTPUT, CLASSES, SIZE = 12, 8, 5, 6  # SIZE: images in a shard
RANGE = ([1.0], [1.0, 0.61, 0.37], [1.0, 0.25])
FIXED = ([1.0, 0.5, 0.25],) * 3
ADAMW = {"kind": "adamw", "lr": 1.0, "betas": (0.8, 0.95)}
L1 = {"kind": "group-l1-batchnorm", "strength": 0.01}
GROUP = {"kind": "group", "strength": 0.01, "alpha": 0.1, "warmup_epochs": 1}


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    thin_networks(monkeypatch)


def run(name: str, base: str, **changes: Any) -> PretrainRun:
    """A small run of 40 epochs with strong decay; `changes` are of the method, or of the run where it has the key."""
    record = {
        "dataset": "noise",
        "backbone": "small-resnet",
        "epochs": 40,
        "batch": {"size": 2 * SIZE, "shards": 2},
        "optimizer": {"lr": 1.0, "momentum": 0.7, "weight_decay": 0.05},
    }
    of_run = {key: value for key, value in changes.items() if key in PretrainRun.model_fields}
    of_method = {key: value for key, value in changes.items() if key not in of_run}
    sizes = {} if name == "supervised" else {"projector": {"hidden": HIDDEN, "output": OUTPUT}}
    method = {"name": name, "base_loss": base, "momentum": 0.8} | sizes
    return PretrainRun.model_validate(record | of_run | {"method": method | of_method})


FROZEN = {"momentum": None, "teacher": "another"}
SUPERVISED = {"momentum": None, "sampling": {"widths": [0.25, 1.0, 0.5]}}
OWN_NORMS = {"widths": [1.0, 0.5, 0.25]}
EVERY_WIDTH = {"distillation_loss": None, "momentum_update": "every-width"}
SEED = {"student_temperature": 0.2, "teacher_temperature": 0.07, "queue": 24}
DINO = {"distillation_loss": "dino", "student_temperature": 0.3, "teacher_temperature": 0.2}

CASES = {
    "moco": (run("moco", "queue", distillation_loss="queue", temperature=0.2, queue=24), RANGE),
    "moco-alone": (run("moco", "queue", **EVERY_WIDTH, temperature=0.2, queue=24), RANGE),
    "moco-v3": (
        run(
            "moco-v3",
            "contrastive",
            distillation_loss="contrastive",
            temperature=0.2,
            momentum_schedule="cosine",
            optimizer=ADAMW | {"weight_decay": 0.1},
        ),
        RANGE,
    ),
    "moco-v3-group": (
        run(
            "moco-v3",
            "contrastive",
            distillation_loss="contrastive",
            temperature=0.2,
            optimizer=ADAMW,
            regularizer=GROUP | {"by": "input-feature"},
        ),
        RANGE,
    ),
    "seed": (run("seed", "queue-soft-labels", distillation_loss="queue-soft-labels", **SEED, **FROZEN), RANGE),
    "seed-narrow": (
        run("seed", "queue-soft-labels", distillation_loss=None, sampling={"widths": [0.5]}, **SEED, **FROZEN),
        ([0.5],) * 3,
    ),
    "seed-cosine": (run("byol", "cosine", distillation_loss="infonce", temperature=0.3, **FROZEN), RANGE),
    "seed-infonce": (run("seed", "infonce", distillation_loss="infonce", temperature=0.3, **FROZEN), RANGE),
    "s-net": (run("supervised", "cross-entropy", distillation_loss=None, **SUPERVISED), FIXED),
    "s-net-distilled": (run("supervised", "cross-entropy", distillation_loss="soft-labels", **SUPERVISED), FIXED),
    "s-net-l1": (
        run("supervised", "cross-entropy", distillation_loss=None, optimizer={"lr": 1.0}, regularizer=L1, **SUPERVISED),
        FIXED,
    ),
    "us-net": (run("supervised", "cross-entropy", distillation_loss="soft-labels", momentum=None), RANGE),
    "byol-own-norms": (
        run("byol", "cosine", sampling=OWN_NORMS, optimizer={"lr": 1.0}, regularizer=GROUP),
        FIXED,
    ),
    "byol-own-norms-alone": (run("byol", "cosine", sampling=OWN_NORMS, **EVERY_WIDTH), FIXED),
    "dino": (run("byol", "cosine", **DINO), RANGE),
    "dino-no-teacher": (run("simclr", "nt-xent", temperature=0.3, **DINO | {"momentum": None}), RANGE),
    "simsiam-momentum": (
        run("simsiam", "cosine", distillation_loss="infonce", temperature=0.3, momentum_update="every-width"),
        RANGE,
    ),
    "sum": (run("byol", "cosine+infonce", distillation_loss="infonce+cosine+dino", temperature=0.3), RANGE),
    "queue-and-both-views": (run("byol", "queue+cosine", distillation_loss="cosine", temperature=0.2, queue=12), RANGE),
    "adamw": (run("byol", "cosine", optimizer=ADAMW | {"weight_decay": 0.1}), RANGE),
    "adamw-group": (run("byol", "cosine", optimizer=ADAMW, regularizer=GROUP, sampling=OWN_NORMS), FIXED),
}
EPOCHS = (0.5, 12.25, 31.75)  # of the three steps: two within DINO's warm-up, and one after it

# --- the plain method -----------------------------------------------------------------------------------------------


def three_layers(features: int, first: bool = True, middle: bool = False, last: bool = True) -> list[nn.Module]:
    """The projector of BYOL and SEED; the arguments say which layers have a bias."""
    hidden = nn.Linear(features, HIDDEN, bias=first), nn.Linear(HIDDEN, HIDDEN, bias=middle)
    norms = nn.BatchNorm1d(HIDDEN), nn.BatchNorm1d(HIDDEN)
    last_layer = nn.Linear(HIDDEN, OUTPUT, bias=last)
    return [hidden[0], norms[0], nn.ReLU(), hidden[1], norms[1], nn.ReLU(), last_layer]


def projector(name: str, features: int) -> nn.Sequential:
    match name:
        case "moco":
            return nn.Sequential(nn.Linear(features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUTPUT))
        case "moco-v3":
            layers = three_layers(features, first=False, last=False)
            return nn.Sequential(*layers, nn.BatchNorm1d(OUTPUT, affine=False))
        case "simclr":
            return nn.Sequential(*three_layers(features, middle=True))
    return nn.Sequential(*three_layers(features))


def predictor(name: str) -> nn.Sequential:
    layers = [nn.Linear(OUTPUT, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
    if name == "moco-v3":
        return nn.Sequential(*layers, nn.Linear(HIDDEN, OUTPUT, bias=False), nn.BatchNorm1d(OUTPUT, affine=False))
    return nn.Sequential(*layers, nn.Linear(HIDDEN, OUTPUT))


class Network(nn.Module):
    """A backbone with the heads of a method, of any width."""

    def __init__(self, of: PretrainRun, width: float) -> None:
        super().__init__()
        self.backbone = Backbone("small-resnet", 3).build(width)
        name = of.method.name
        if name == "supervised":
            self.classifier = nn.Linear(self.backbone.num_features, CLASSES)
            return
        self.projector = projector(name, self.backbone.num_features)
        if name in ("byol", "simsiam", "moco-v3"):
            self.predictor = predictor(name)
        if of.method.distillation_loss:
            self.distillation_predictor = predictor(name)

    def embed(self, x: Tensor) -> Tensor:
        return (self.projector if hasattr(self, "projector") else self.classifier)(self.backbone(x))

    def predict(self, projection: Tensor, head: str) -> Tensor:
        return getattr(self, head)(projection) if hasattr(self, head) else projection


class Plain:
    """All of a method in one process: wide weights by name, from which the network of each step is copied."""

    def __init__(self, of: PretrainRun, weights: dict[str, Tensor], queue: Tensor | None) -> None:
        self.run, self.method, self.widest = of, of.method, of.sampling.widest
        self.wide = {name: nn.Parameter(p.clone()) for name, p in weights.items()}
        self.batch_norms = {name for name, p in weights.items() if ".bn" in name or "downsample.1" in name}
        self.teacher = {name: p.clone() for name, p in weights.items() if name.startswith(("backbone", "projector"))}
        names = {name for name in weights if "@" not in name}
        assert names == {name for name, _ in Network(of, self.widest).named_parameters()}
        settings = {"lr": 1.0, "weight_decay": of.optimizer.weight_decay, "foreach": False}
        if of.optimizer.kind == "adamw":
            self.optimizer = torch.optim.AdamW(self.wide.values(), betas=of.optimizer.betas, **settings)
        else:
            self.optimizer = torch.optim.SGD(self.wide.values(), momentum=of.optimizer.momentum, **settings)
        self.queue, self.oldest = queue, 0
        self.center = torch.zeros(OUTPUT)

    def cut(self, weights: dict[str, Tensor], width: float) -> Network:
        network = Network(self.run, width)
        for name, p in network.named_parameters():
            if source := self.source(name, width, weights):
                p.data = weights[source].detach()[leading(p)].clone()
        return network

    def source(self, name: str, width: float, weights: dict[str, Tensor]) -> str | None:
        own = f"{name}@{width}"
        return own if own in weights else name if name in weights else None

    def step(self, batch: list[Shard], widths: Sequence[float], epoch: float, lr: float) -> list[float]:
        losses, keys, of_widest = [], None, None
        for width in widths:
            widest = width == widths[0]
            moves = widest or self.method.momentum_update == "every-width"
            if moves and self.method.momentum is not None:
                self.move_teacher(epoch)
            network = self.cut(self.wide, width)
            projections = [[network.embed(view) for view in shard.views] for shard in batch]
            own = widest or self.method.distillation_loss is None
            if own:
                keys = self.keys(batch, projections, self.widest if self.method.distillation_loss else width)
                of_widest = of_widest or keys
            head = "predictor" if moves else "distillation_predictor"
            names = self.method.base_loss if own else self.method.distillation_loss
            total = 0
            for number, shard in enumerate(batch):
                students = [network.predict(projection, head) for projection in projections[number]]
                rows = range(number * SIZE, (number + 1) * SIZE)
                total = total + sum(self.loss(name, students, keys, rows, shard, epoch) for name in names.split("+"))
            mean = total / len(batch)
            mean.backward()
            self.update(network, width, epoch, lr)
            losses.append(mean.item())
        self.remember(of_widest)
        return losses

    def move_teacher(self, epoch: float) -> None:
        m = self.method.momentum
        if self.method.momentum_schedule == "cosine":
            m = 1 - 0.5 * (1 + math.cos(math.pi * epoch / self.run.epochs)) * (1 - m)
        self.teacher = {name: m * p + (1 - m) * self.wide[name].detach() for name, p in self.teacher.items()}

    def keys(self, batch: list[Shard], own: list[list[Tensor]], width: float) -> list[Tensor]:
        """The teacher's embeddings of the whole batch [N, D], of each view."""
        views = list(zip(*(shard.views for shard in batch), strict=True))
        if self.method.teacher:
            return [torch.cat([frozen_teacher(each, 1).projection for each in view]) for view in views]
        if self.method.momentum is None:
            return [torch.cat(view).detach() for view in zip(*own, strict=True)]
        teacher, order = self.cut(self.teacher, width), batch[0].order
        if order is None:
            return [torch.cat([teacher.embed(each).detach() for each in view]) for view in views]
        result = []
        for view in views:
            images = torch.cat(view)
            moved = torch.cat([teacher.embed(images[places]).detach() for places in order.chunk(len(batch))])
            found = torch.empty_like(moved)
            for place, image in enumerate(order.tolist()):
                found[image] = moved[place]
            result.append(found)
        return result

    def loss(
        self, name: str, students: list[Tensor], keys: list[Tensor], rows: range, shard: Shard, epoch: float
    ) -> Tensor:
        t, own = self.method.temperature, [key[rows.start : rows.stop] for key in keys]
        crossed = [(students[view], own[1 - view]) for view in range(2)] if len(students) == 2 else []
        match name:
            case "cosine":
                return -sum(nn.CosineSimilarity()(one, other).mean() for one, other in crossed) / 2
            case "infonce":
                return sum(nt_xent(one, other, t) for one, other in crossed) / 2
            case "nt-xent":
                return nt_xent(*students, t)
            case "contrastive":
                labels = torch.tensor(list(rows))
                logits = [F.normalize(students[view]) @ F.normalize(keys[1 - view]).T / t for view in range(2)]
                return sum(nn.CrossEntropyLoss()(each, labels) * 2 * t for each in logits)
            case "queue":
                return nn.CrossEntropyLoss()(
                    self.similarities(students[0], own[1]) / t, torch.zeros(SIZE, dtype=torch.int64)
                )
            case "queue-soft-labels":
                targets = (self.similarities(own[0], own[0]) / self.method.teacher_temperature).softmax(1)
                student = self.similarities(students[0], own[0]) / self.method.student_temperature
                return nn.CrossEntropyLoss()(student, targets)
            case "cross-entropy":
                return nn.CrossEntropyLoss()(students[0], shard.labels)
            case "soft-labels":
                return nn.CrossEntropyLoss()(students[0], own[0].softmax(1))
            case "dino":
                temperature = np.linspace(0.04, self.method.teacher_temperature, 30)[min(int(epoch), 29)]
                pairs = [(one, ((other - self.center) / temperature).softmax(1)) for one, other in crossed]
                return sum(nn.CrossEntropyLoss()(one / self.method.student_temperature, p) for one, p in pairs) / 2
        raise AssertionError(name)

    def similarities(self, one: Tensor, own: Tensor) -> Tensor:
        """Of each image with its own key, then with each in the queue."""
        cosine = nn.CosineSimilarity()
        columns = [cosine(one, own), *(cosine(one, entry.expand_as(one)) for entry in self.queue)]
        return torch.stack(columns, dim=1)

    def update(self, network: Network, width: float, epoch: float, lr: float) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        for name, p in network.named_parameters():
            if p.grad is not None:
                wide = self.wide[self.source(name, width, self.wide)]
                wide.grad = torch.zeros_like(wide) if wide.grad is None else wide.grad
                wide.grad[leading(p)] = p.grad
        if self.run.regularizer:
            settings = self.run.regularizer, int(epoch), self.run.epochs, width
            penalty(self.wide.items(), *settings, self.batch_norms).backward()
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()

    def remember(self, keys: list[Tensor]) -> None:
        if self.queue is not None:
            of_view = keys[0 if self.method.base_loss == "queue-soft-labels" else 1]
            for key in of_view:
                self.queue[self.oldest] = key / key.norm()
                self.oldest = (self.oldest + 1) % len(self.queue)
        if "dino" in self.method.base_loss + (self.method.distillation_loss or ""):
            self.center = 0.9 * self.center + 0.1 * torch.cat(keys).mean(0)


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    z = F.normalize(torch.cat([one, other]))
    similar = (z @ z.T / temperature).exp()
    others = similar.sum(1) - similar.diag()
    positive = (z * z.roll(len(one), 0)).sum(1) / temperature
    return (others.log() - positive).mean()


def leading(p: Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in p.shape)


def frozen_teacher(images: Tensor, groups: int) -> Output:
    """A network that is none of ours, in training mode, of groups that go apart."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(shape, generator=generator) for shape in ((16, 192), (OUTPUT, 16))]
    hidden = F.linear(images.flatten(1), weights[0])
    normalized = torch.cat([F.batch_norm(each, None, None, training=True).relu() for each in hidden.chunk(groups)])
    embeddings = F.linear(normalized, weights[1])
    return Output(embeddings, embeddings, [])


# --- ours against it ------------------------------------------------------------------------------------------------


def train_step(
    of: PretrainRun,
    seed: int = 0,
    reduce: Callable[[Tensor], None] = lambda tensor: None,
    micro_batching: MicroBatching | None = None,
) -> TrainStep:
    frozen = frozen_teacher if of.method.teacher else None
    backbone, alone = Backbone(of.backbone, 3), World(0, 1, CPU)
    made = build_train_step(of, backbone, CLASSES, seed, alone, frozen, micro_batching)
    made.all_reduce_ = made.teacher.all_reduce_ = reduce
    return made


def batch(of: PretrainRun, number: int) -> list[Shard]:
    """The shards of a step, as the stream gives them to this method."""
    generator, count = torch.Generator().manual_seed(number), of.batch.shards
    views = torch.randn(2, count, SIZE, 3, 8, 8, generator=generator)
    labels = torch.randint(CLASSES, (count, SIZE), generator=generator)
    seen = views[:1] if of.method.name == "supervised" else views
    result = [Shard(tuple(seen[:, index]), index, labels[index]) for index in range(count)]
    if of.method.name != "moco":
        return result
    order = torch.randperm(count * SIZE, generator=generator)
    moved = views.flatten(1, 2)[:, order].unflatten(1, (count, SIZE))
    return [each._replace(shuffled=tuple(moved[:, each.number]), order=order) for each in result]


def rate(of: PretrainRun, number: int) -> float:
    """AdamW makes a step of rounding errors, where a gradient is zero but for them: the smaller its rate, the less."""
    return (1e-4 if of.optimizer.kind == "adamw" else 0.2) / (1 + number)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("micro_batching", [MicroBatching(1, 0), MicroBatching(8, math.inf)], ids=["apart", "together"])
@pytest.mark.parametrize(("of", "widths"), CASES.values(), ids=CASES.keys())
def test_three_batches_give_the_losses_weights_and_memory_of_the_plain_method(
    of: PretrainRun, widths: Sequence[list[float]], micro_batching: MicroBatching
) -> None:
    ours = train_step(of, micro_batching=micro_batching)
    before = ours.student.weights.values.clone()
    queue = ours.teacher.queue
    plain = Plain(of, ours.student.weights.parameters, queue and queue.values.clone())
    for number in range(3):
        where = widths[number], EPOCHS[number], rate(of, number)
        results, expected = ours(batch(of, number), *where), plain.step(batch(of, number), *where)
        assert results[:, 0].tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    for name, p in plain.wide.items():
        torch.testing.assert_close(ours.student.weights.parameters[name], p.data, rtol=0, atol=1e-10, msg=name)
    if of.method.momentum is not None:
        for name, p in ours.student.weights.views(ours.teacher.momentum_encoder).items():
            torch.testing.assert_close(p, plain.teacher[name], rtol=0, atol=1e-10, msg=name)
    if queue:
        torch.testing.assert_close(queue.values, plain.queue, rtol=0, atol=1e-10)
        assert queue.position.item() == plain.oldest
    if ours.teacher.center is not None:
        torch.testing.assert_close(ours.teacher.center, plain.center[None], rtol=0, atol=1e-10)
        assert plain.center.abs().max() > 1e-3
    assert (ours.student.weights.values - before).abs().max() > 1e-4


@pytest.mark.usefixtures("float64")
def test_feature_maps_are_added_to_a_loss_of_one_view() -> None:
    """The same as to a loss of both, from the same weights."""

    def of_narrow(loss: str, **features: Any) -> float:
        of = run("byol", loss, distillation_loss=loss, queue=24, **features)
        return train_step(of)(batch(of, 0), [1.0, 0.5], 0, 0.0)[1, 0].item()

    maps = {"feature_distillation": {"layers": ["layer2"], "strength": 3.0}}
    added = of_narrow("queue", **maps) - of_narrow("queue")
    assert added == pytest.approx(of_narrow("queue+cosine", **maps) - of_narrow("queue+cosine"), abs=1e-12)
    assert added > 0.1


FOUR = {"batch": {"size": 4 * SIZE, "shards": 4}}
IN_TWO = ("moco", "moco-v3", "seed", "s-net-distilled", "byol-own-norms", "dino")


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("float64", "one_thread")
@pytest.mark.parametrize("name", IN_TWO)
def test_two_processes_have_the_bits_of_one(name: str) -> None:
    """Two steps in threads that add up their tensors in lock-step, as processes do."""
    of, widths = CASES[name]
    of = PretrainRun.model_validate(of.model_dump(exclude_unset=True) | FOUR)
    parts, barrier = [torch.empty(0)] * 2, Barrier(2, timeout=60)

    def member(rank: int) -> Callable[[Tensor], None]:
        def reduce(tensor: Tensor) -> None:
            parts[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(parts[0] + parts[1])
            barrier.wait()

        return reduce

    alone, members = train_step(of), [train_step(of, reduce=member(rank)) for rank in range(2)]
    shares: dict[int, Tensor] = {}

    def work(rank: int, number: int) -> None:
        torch.set_num_threads(1)  # of this Python thread: the bits of a sum depend on it
        mine = batch(of, number)[2 * rank : 2 * rank + 2]
        shares[rank] = members[rank](mine, widths[number], EPOCHS[number], rate(of, number))

    for number in (1, 2):
        threads = [Thread(target=work, args=(rank, number)) for rank in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = alone(batch(of, number), widths[number], EPOCHS[number], rate(of, number))
        assert torch.equal(shares[0] + shares[1], together)
    for key, tensor in alone.state().items():
        for each in members:
            assert torch.equal(each.state()[key], tensor), key


@pytest.mark.parametrize("name", CASES)
def test_a_step_that_loads_a_saved_state_continues_bitwise(name: str, tmp_path: Path) -> None:
    of, widths = CASES[name]
    first, second = train_step(of, seed=0), train_step(of, seed=1)
    for number in range(2):
        first(batch(of, number), widths[number], EPOCHS[number], rate(of, number))
    checkpoint.save(tmp_path / "state.safetensors", first.state(), {})
    second.load_state(checkpoint.load(tmp_path / "state.safetensors")[0])
    results = [each(batch(of, 2), widths[2], EPOCHS[2], rate(of, 2)) for each in (first, second)]
    assert torch.equal(*results)
    for key, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[key]), key
