"""The code that each stage computes with: its own module, and what that imports outside the pipeline.

The pipeline itself says where files lie and what is to be made, never what is in them: no edit of the plan, of a record
or of another stage changes the code of this one.
"""

from us3l.params.protocols.protocol import KINDS
from us3l.utils.source import code_of

PIPELINE = "us3l.pipeline"
EVALUATIONS = {kind: f"us3l.evaluation.{kind.replace('-', '_')}" for kind in KINDS}
STAGES_OF_RUNS = {
    "pretrain": (f"{PIPELINE}.stages.pretrain",),
    "calibrate": (f"{PIPELINE}.stages.calibrate",),
    **{kind: (f"{PIPELINE}.stages.evaluate", protocol) for kind, protocol in EVALUATIONS.items()},
}
STAGES = {
    "prepare": (f"{PIPELINE}.stages.prepare",),
    **STAGES_OF_RUNS,
    "table": (f"{PIPELINE}.stages.table", *(f"{PIPELINE}.tables.{name}" for name in ("cells", "formats", "record"))),
}


def code(stage: str) -> dict[str, str]:
    """Hash each module that a stage computes with: the module's name and 12 hexadecimal digits."""
    return code_of(*STAGES[stage], ignored=PIPELINE)
