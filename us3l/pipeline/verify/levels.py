"""`us3l verify`: numbers derived again, level by level; each verdict says how exactly they must agree.

Level 0 derives the tables' text from the evaluations, 1 checks every file against its seal, the params, the code, its
source and dvc.lock, 2 derives the evaluations from the stored checkpoints, 3 data and checkpoints from the params and
the sources. Levels 0 and 1 need no PyTorch.
"""

from collections.abc import Callable, Iterable

from us3l.pipeline.verify.derived import evaluations_from_checkpoints, everything_from_sources
from us3l.pipeline.verify.files import files_as_recorded
from us3l.pipeline.verify.selection import Selection
from us3l.pipeline.verify.texts import texts_from_evaluations
from us3l.pipeline.verify.verdict import Verdict, print_verdicts
from us3l.utils.errors import UserError

Level = Callable[[Selection], Iterable[Verdict]]
LEVELS: tuple[Level, ...] = (
    texts_from_evaluations,
    files_as_recorded,
    evaluations_from_checkpoints,
    everything_from_sources,
)
HOLDS, DIFFERS, NOT_CHECKED = 0, 1, 3  # exit codes


def verify(selection: Selection, deepest: int) -> int:
    """Check the levels up to `deepest`, print their verdicts, and return the exit code that sums them up.

    Raises UserError where a level cannot be checked, and none before it has found why.
    """
    verdicts: list[Verdict] = []
    for number, level in enumerate(LEVELS[: deepest + 1]):
        try:
            verdicts.extend(print_verdicts(number, level(selection)))
        except UserError as error:
            if not any(verdict.wrong for verdict in verdicts):
                raise
            print(f"level {number}  not checked: {error}")
    if any(verdict.wrong for verdict in verdicts):
        return DIFFERS
    return NOT_CHECKED if any(verdict.unchecked for verdict in verdicts) else HOLDS
