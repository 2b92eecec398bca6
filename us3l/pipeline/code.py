"""The code of each stage: its own module, and what that imports outside the pipeline.

The pipeline itself determines where files lie and what is made, never their content: no edit of the plan, of a record
or of another stage changes the code of a stage.
"""

from us3l.params.protocols.protocol import KINDS
from us3l.utils.source import code_of

PIPELINE = "us3l.pipeline"
EVALUATIONS = {kind: f"us3l.evaluation.{kind.replace('-', '_')}" for kind in KINDS}
RUN_STAGES = {
    "pretrain": (f"{PIPELINE}.stages.pretrain",),
    "calibrate": (f"{PIPELINE}.stages.calibrate",),
    **{kind: (f"{PIPELINE}.stages.evaluate", protocol) for kind, protocol in EVALUATIONS.items()},
}
STAGES = {
    "prepare": (f"{PIPELINE}.stages.prepare",),
    **RUN_STAGES,
    "table": (f"{PIPELINE}.stages.table", *(f"{PIPELINE}.tables.{name}" for name in ("cells", "formats", "record"))),
    "export": tuple(f"{PIPELINE}.{name}" for name in ("stages.export", "export", "deploy")),
}


def code(stage: str) -> dict[str, str]:
    """Hash each module of a stage's code: return 12 hexadecimal digits by the module's name."""
    return code_of(*STAGES[stage], ignored=PIPELINE)
