"""References in params.yaml: the run whose weights another one takes, and what a run has from it."""

from typing import TYPE_CHECKING

from us3l.params.runs import PretrainRun, PruneRun, ReuseRun, Run
from us3l.params.sampling import AnySampling
from us3l.params.schema import error_at, suggestion

if TYPE_CHECKING:
    from us3l.params.study import Study

Address = tuple[str, str]  # study and run
Studies = dict[str, "Study"]
NOT_TO_PRUNE = ("pixels", "vit-tiny", "vit-small", "vit-base")  # which have no BatchNorms behind convolutions


def run_at(studies: Studies, address: Address) -> Run:
    study, name = address
    return studies[study].runs[name]


def source_of(studies: Studies, address: Address) -> Address | None:
    """The run whose weights a run takes: to evaluate them, to prune them, or as its teacher."""
    reference = _reference(run_at(studies, address))[1]
    if reference is None:
        return None
    study, _, run = reference.rpartition("/")
    return study or address[0], run


def sampling_of(studies: Studies, address: Address) -> AnySampling:
    """The widths that a run has."""
    run = run_at(studies, address)
    return sampling_of(studies, source_of(studies, address)) if isinstance(run, ReuseRun) else run.sampling


def widths_of(studies: Studies, address: Address) -> list[float]:
    """Those of its study's widths that a run has."""
    sampling = sampling_of(studies, address)
    return [width for width in studies[address[0]].widths if sampling.has(width)]


def check_references(studies: Studies) -> None:
    """Raise an error where a run takes weights that there are not, or not as it needs them."""
    addresses = [(study, run) for study in studies for run in studies[study].runs]
    referring = [address for address in addresses if source_of(studies, address)]
    for check in (_check_names, _check_circles, _check_kinds, _check_seeds, _check_widths):
        for address in referring:
            check(studies, address)


def _reference(run: Run) -> tuple[str, str | None]:
    """The key of a run's reference, and the reference."""
    match run:
        case ReuseRun() | PruneRun():
            return "weights_from", run.weights_from
        case PretrainRun():
            return "method.teacher", run.method.teacher
    return "weights_from", None


def _where(studies: Studies, address: Address) -> str:
    study, name = address
    return f"studies.{study}.runs.{name}.{_reference(run_at(studies, address))[0]}"


def _check_names(studies: Studies, address: Address) -> None:
    study, run = source_of(studies, address)
    if study not in studies:
        what = f"no study is called {study!r}; {suggestion(study, list(studies))}"
        raise error_at(_where(studies, address), what)
    if run not in studies[study].runs:
        what = f"the study {study!r} has no run {run!r}; {suggestion(run, list(studies[study].runs))}"
        raise error_at(_where(studies, address), what)


def _check_circles(studies: Studies, address: Address) -> None:
    seen = [address]
    while source := source_of(studies, seen[-1]):
        if source in seen:
            circle = " from ".join("/".join(each) for each in [*seen, source])
            raise error_at(_where(studies, address), f"weights go round in a circle: {circle}")
        seen.append(source)


def _check_kinds(studies: Studies, address: Address) -> None:
    source = source_of(studies, address)
    run, other = run_at(studies, address), run_at(studies, source)
    name, where = "/".join(source), _where(studies, address)
    if isinstance(other, ReuseRun) or (isinstance(other, PruneRun) and not isinstance(run, ReuseRun)):
        origin = "/".join(source_of(studies, source))
        raise error_at(where, f"{name} has no such weights of its own; name {origin}, from which it takes them")
    if isinstance(run, PruneRun) and other.sampling.widest < 1:
        raise error_at(
            where, f"{name} has the widths {other.sampling}; name a run that has the width 1.0, to be pruned"
        )
    if isinstance(run, PruneRun) and other.backbone in NOT_TO_PRUNE:
        what = f"is of {other.backbone}, which has no BatchNorms behind convolutions to prune by"
        raise error_at(where, f"{name} {what}")
    if isinstance(run, PretrainRun):
        _check_teacher(run, other, name, where)


def _check_teacher(run: PretrainRun, teacher: Run, name: str, where: str) -> None:
    """Without a projector whose embeddings are as long as the student's there is nothing to compare with."""
    if not isinstance(teacher, PretrainRun) or teacher.method.name == "supervised":
        raise error_at(where, f"{name} has no projector; name a self-supervised training")
    if teacher.method.projector.output != run.method.projector.output:
        lengths = f"{teacher.method.projector.output} numbers, and the student's of {run.method.projector.output}"
        raise error_at(where, f"the embeddings of {name} are of {lengths}: give both the same method.projector.output")


def _check_seeds(studies: Studies, address: Address) -> None:
    source = source_of(studies, address)
    mine, others = (studies[study].seeds for study in (address[0], source[0]))
    if set(mine) != set(others):
        what = f"the study {address[0]} has the seeds {mine} and {source[0]} has {others}; each needs its counterpart"
        raise error_at(_where(studies, address), what)


def _check_widths(studies: Studies, address: Address) -> None:
    source = source_of(studies, address)
    if isinstance(run_at(studies, address), ReuseRun):
        absent = [width for width in widths_of(studies, address) if width not in studies[source[0]].widths]
        if absent:
            what = f"the study {source[0]} does not evaluate the widths {absent} of {source[1]}; add them there"
            raise error_at(_where(studies, address), what)
