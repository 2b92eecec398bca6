"""References in params.yaml, resolved once: the run whose weights another one takes, and its widths."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from us3l.params.runs import PretrainRun, PruneRun, ReuseRun, Run
from us3l.params.sampling import AnySampling
from us3l.params.schema import MAX_CHAIN, error_at, suggestion

if TYPE_CHECKING:
    from us3l.params.study import Study

Address = tuple[str, str]  # study and run
Studies = dict[str, "Study"]

UNPRUNABLE = ("pixels", "vit-tiny", "vit-small", "vit-base")  # without BatchNorms behind convolutions


@dataclass(frozen=True)
class ResolvedRun:
    """A run, the one whose weights it takes (to evaluate them, to prune them, or as its teacher), and its widths.

    sampling: all widths of the run; widths: those that its study evaluates.
    """

    address: Address
    run: Run
    weights_from: "ResolvedRun | None"
    sampling: AnySampling
    widths: tuple[float, ...]

    @property
    def name(self) -> str:
        return "/".join(self.address)

    @property
    def is_pruned(self) -> bool:
        """True if its networks are pruned, by itself or by the run whose networks it evaluates."""
        reused = self.weights_from if isinstance(self.run, ReuseRun) else None
        return isinstance(self.run, PruneRun) or (reused is not None and reused.is_pruned)

    @property
    def key(self) -> str:
        """Key of the run in params.yaml."""
        study, run = self.address
        return f"studies.{study}.runs.{run}"

    @property
    def reference_key(self) -> str:
        """Key of the run's reference."""
        return f"{self.key}.{'method.teacher' if isinstance(self.run, PretrainRun) else 'weights_from'}"


def resolve(studies: Studies) -> dict[Address, ResolvedRun]:
    """Resolve every run, each after the one whose weights it takes.

    Raises an error where a run takes weights that do not exist, or not as it needs them.
    """
    resolved: dict[Address, ResolvedRun] = {}
    addresses = [(study, run) for study in studies for run in studies[study].runs]
    for address in addresses:
        _require_name(studies, address)
    for address in addresses:
        _require_no_circle(studies, address)
    for address in addresses:
        _resolve(studies, address, resolved)
    for check in (_check_kind, _check_seeds, _check_widths):
        for address in addresses:
            if other := resolved[address].weights_from:
                check(studies, resolved[address], other)
    return resolved


def _resolve(studies: Studies, address: Address, resolved: dict[Address, ResolvedRun]) -> ResolvedRun:
    if address not in resolved:
        study, name = address
        run, other = studies[study].runs[name], _weights_from(studies, address)
        taken = _resolve(studies, other, resolved) if other else None
        if isinstance(run, ReuseRun):
            assert taken is not None  # a reuse run must have a reference
            sampling = taken.sampling
        else:
            sampling = run.sampling
        widths = tuple(width for width in studies[study].widths if sampling.has(width))
        resolved[address] = ResolvedRun(address, run, taken, sampling, widths)
    return resolved[address]


def _reference(run: Run) -> tuple[str, str | None]:
    """Return the key of a run's reference, and the reference."""
    match run:
        case ReuseRun() | PruneRun():
            return "weights_from", run.weights_from
        case PretrainRun():
            return "method.teacher", run.method.teacher
    return "weights_from", None


def _weights_from(studies: Studies, address: Address) -> Address | None:
    study, name = address
    reference = _reference(studies[study].runs[name])[1]
    if reference is None:
        return None
    other, _, run = reference.rpartition("/")
    return other or study, run


def _reference_key(studies: Studies, address: Address) -> str:
    study, name = address
    return f"studies.{study}.runs.{name}.{_reference(studies[study].runs[name])[0]}"


def _require_name(studies: Studies, address: Address) -> None:
    other = _weights_from(studies, address)
    if other is None:
        return
    study, run = other
    if study not in studies:
        what = f"no study is called {study!r}; {suggestion(study, list(studies))}"
        raise error_at(_reference_key(studies, address), what)
    if run not in studies[study].runs:
        what = f"the study {study!r} has no run {run!r}; {suggestion(run, list(studies[study].runs))}"
        raise error_at(_reference_key(studies, address), what)


def _require_no_circle(studies: Studies, address: Address) -> None:
    seen = [address]
    while other := _weights_from(studies, seen[-1]):
        if other in seen:
            circle = " from ".join("/".join(each) for each in [*seen, other])
            raise error_at(_reference_key(studies, address), f"weights go round in a circle: {circle}")
        if len(seen) > MAX_CHAIN:
            what = f"takes weights from a run that takes them from another, more than {MAX_CHAIN} times"
            raise error_at(_reference_key(studies, address), what)
        seen.append(other)


def _check_kind(studies: Studies, mine: ResolvedRun, other: ResolvedRun) -> None:
    run, where, name = other.run, mine.reference_key, other.name
    if isinstance(run, ReuseRun) or (isinstance(run, PruneRun) and not isinstance(mine.run, ReuseRun)):
        origin = other.weights_from.name if other.weights_from else name
        raise error_at(where, f"{name} has no such weights of its own; name {origin}, from which it takes them")
    if isinstance(mine.run, PruneRun) and other.sampling.widest < 1:
        what = f"has the widths {other.sampling}; name a run that has the width 1.0, to be pruned"
        raise error_at(where, f"{name} {what}")
    if isinstance(mine.run, PruneRun) and not isinstance(run, PruneRun) and run.backbone in UNPRUNABLE:
        what = f"is of {run.backbone}, which has no BatchNorms behind convolutions to prune by"
        raise error_at(where, f"{name} {what}")
    if isinstance(mine.run, PretrainRun):
        _check_teacher(mine.run, run, name, where)


def _check_teacher(run: PretrainRun, teacher: Run, name: str, where: str) -> None:
    """Require a projector of the teacher, with embeddings as long as the student's."""
    if not isinstance(teacher, PretrainRun) or teacher.method.name == "supervised":
        raise error_at(where, f"{name} has no projector; name a self-supervised training")
    theirs, own = teacher.method.projector.output, run.method.projector.output
    if theirs != own:
        lengths = f"{theirs} numbers, and the student's of {own}"
        raise error_at(where, f"the embeddings of {name} are of {lengths}: give both the same method.projector.output")


def _check_seeds(studies: Studies, mine: ResolvedRun, other: ResolvedRun) -> None:
    study, theirs = mine.address[0], other.address[0]
    seeds, others = studies[study].seeds, studies[theirs].seeds
    if set(seeds) != set(others):
        what = f"the study {study} has the seeds {seeds} and {theirs} has {others}; each needs its counterpart"
        raise error_at(mine.reference_key, what)


def _check_widths(studies: Studies, mine: ResolvedRun, other: ResolvedRun) -> None:
    if isinstance(mine.run, ReuseRun):
        study, run = other.address
        missing = [width for width in mine.widths if width not in studies[study].widths]
        if missing:
            what = f"the study {study} does not evaluate the widths {missing} of {run}; add them there"
            raise error_at(mine.reference_key, what)
