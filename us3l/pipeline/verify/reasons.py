"""Why a result may differ in its bits from the same one made here."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from us3l.pipeline.identity import differences
from us3l.pipeline.plan.dataset import PrepareJob
from us3l.pipeline.requalification import requalification
from us3l.pipeline.requalify import ProbedJob
from us3l.pipeline.verify.rederive import Derivation, Rederived

Reasons = dict[Path, str]  # by the record of the result; of a result that must be equal bit for bit there is none


def own_reason(each: Rederived) -> str | None:
    """Say why a result may differ, by its own circumstances; None where it may not, such as a data set's."""
    if isinstance(each.job, PrepareJob):
        return None
    for key, name in (("hardware", "on other hardware"), ("versions", "with other versions")):
        for what, was, here in differences(each.recorded.get(key), each.again[key]):
            return f"made {name}: {what or key} {was}, here {here}"
    if each.again["hardware"]["device"] != "cpu":
        return "made on a GPU, which may add in another order each time"
    if any(found["promise"] != "bitwise" for found in _requalifications(each)):
        return "made by other code, requalified within rounding"
    return None


def _requalifications(each: Rederived) -> Iterable[dict[str, Any]]:
    found = requalification(each.job)
    return [*([found] if found else []), *each.recorded.get("requalified", [])]


def reasons(derivation: Derivation) -> Reasons:
    """Say of each result why it may differ, by its own circumstances or by those of a result that it rests on."""
    of_job: dict[ProbedJob, str] = {}
    found: Reasons = {}
    for each in derivation.results:
        if own := own_reason(each):
            of_job[each.job] = own
        if reason := own or next((of_job[job] for job in derivation.behind[each.job] if job in of_job), None):
            found[each.path] = reason
    return found
