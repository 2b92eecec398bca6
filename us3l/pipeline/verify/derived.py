"""Levels 2 and 3: results derived again, and compared as exactly as what made them allows."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from us3l.pipeline.code import EVALUATIONS
from us3l.pipeline.probes.comparison import beyond_rounding
from us3l.pipeline.requalification import requalification
from us3l.pipeline.requalify import Subject, compare, probe_all
from us3l.pipeline.verify.comparison import Found, bitwise, statistically, within_rounding
from us3l.pipeline.verify.files import requalified
from us3l.pipeline.verify.reasons import Reasons, own_reason, reasons
from us3l.pipeline.verify.rederive import Derivation, Rederived, rederived
from us3l.pipeline.verify.selection import Selection
from us3l.pipeline.verify.verdict import Verdict
from us3l.utils.errors import UserError
from us3l.utils.records import read_record


def evaluations_from_checkpoints(selection: Selection) -> Iterator[Verdict]:
    """Calibrate and evaluate again, in a separate folder; run the probes again of what bits cannot be compared of."""
    with rederived(selection, "calibrate") as derivation:
        yield from Judgement(derivation, "within rounding", within_rounding).verdicts()
        elsewhere = _from_elsewhere(derivation, ("calibrate", *EVALUATIONS))
    kept = [Subject(job, read_record(job.record)) for job in requalified(selection)]
    yield from _probed_again("requalified results", kept)
    yield from _probed_again("results that this machine did not make", elsewhere)


def everything_from_sources(selection: Selection) -> Iterator[Verdict]:
    """Prepare data sets from their sources, train and evaluate again, in a separate folder."""
    with rederived(selection, "pretrain") as derivation:
        yield from Judgement(derivation, "statistical", statistically).verdicts()
        elsewhere = _from_elsewhere(derivation, ("pretrain",))
    yield from _probed_again("trainings that this machine did not make", elsewhere)


@dataclass(frozen=True)
class Judgement:
    """Compares bitwise what a machine like this one made, and by `otherwise`, with its promise, what another did."""

    derivation: Derivation
    promise: str
    otherwise: Callable[[Rederived], Found]

    def verdicts(self) -> Iterator[Verdict]:
        """Yield a verdict of each promise, and one of what rests on sources that are not here."""
        why, results = reasons(self.derivation), self.derivation.results
        rest = [each for each in results if self.derivation.not_made(each)]
        like_here = [each for each in results if each not in rest and each.path not in why]
        others = [each for each in results if each not in rest and each.path in why]
        if like_here:
            wrong = self._compare(like_here, why).wrong
            yield Verdict(f"results that a machine like this one made ({len(like_here)})", "bitwise", wrong)
        if others:
            found = self._compare(others, why)
            notes = [f"{reason} ({count})" for reason, count in Counter(why[each.path] for each in others).items()]
            compared = f"results that other hardware, versions or code made ({len(others)})"
            yield Verdict(compared, self.promise, found.wrong, [*notes, *found.about_images])
        if missing := [*dict.fromkeys(self.derivation.missing.values())]:
            promise = self.promise if any(each.path in why for each in rest) else "bitwise"
            sentences = [f"{sentence}: taken as it lies here" for sentence in missing]
            compared = f"results that rest on what is not made again ({len(rest)})"
            yield Verdict(compared, promise, self._compare(rest, why).wrong, [], sentences)

    def _compare(self, results: list[Rederived], why: Reasons) -> Found:
        found = Found()
        for each in results:
            found += self.otherwise(each) if each.path in why else bitwise(each, self.derivation)
        return found


def _from_elsewhere(derivation: Derivation, stages: tuple[str, ...]) -> list[Subject]:
    """Return the results of some stages that another CPU, or other versions, made, unless they are requalified."""
    found = {
        each.job: Subject(each.job, each.recorded)
        for each in reversed(derivation.results)
        if each.job.stage in stages and own_reason(each) and each.recorded["hardware"].get("device") == "cpu"
    }
    return [subject for job, subject in found.items() if not requalification(job)]


def _probed_again(of_what: str, subjects: list[Subject]) -> Iterator[Verdict]:
    """Hold the probes of results, run again, against those that their records and requalifications state."""
    wrong = []
    for subject, outcome in zip(subjects, probe_all(subjects), strict=True):
        if isinstance(outcome, UserError):
            wrong.append(str(outcome))
        elif not (finding := compare(subject, outcome)).is_equal:
            wrong.append(str(finding))
        elif (kept := requalification(subject.job)) and beyond_rounding(kept["probe"], outcome[0]):
            wrong.append(f"us3l {subject.job.command}: its requalification states another outcome of the probe")
    if subjects:
        yield Verdict(f"probes of {of_what} ({len(subjects)})", "within rounding", wrong)
