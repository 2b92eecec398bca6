"""The stage export: from the networks of a run to folders that run without this package."""

import shutil
import time

import torch

from us3l.pipeline.deploy import DeployedRun
from us3l.pipeline.export import export_run
from us3l.pipeline.integrity import seal_of_file
from us3l.pipeline.lineage import CurrentSeals
from us3l.pipeline.plan.export import ExportJob
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.provenance import record
from us3l.utils.records import write_record


def make_export(job: ExportJob, plan: Plan, device: torch.device) -> bool:
    """Write a folder for each width, and a record of their files; where one does not hold, nothing stays.

    Tell whether all files hold. What lay in the job's folder is removed before.
    Raises UserError as `us3l.pipeline.export.export_run` does.
    """
    export, holds, start = job.export, False, time.monotonic()
    [identity] = job.identities(CurrentSeals()).values()
    shutil.rmtree(job.folder, ignore_errors=True)
    deployed = DeployedRun(plan, export.run, job.seed, device)
    try:
        holds = export_run(deployed, export.widths, export.export.head, export.export.formats, job.folder)
    finally:
        if not holds:
            shutil.rmtree(job.folder, ignore_errors=True)
    if holds:
        files = {str(path.relative_to(job.folder)): seal_of_file(path) for path in export.files(job.seed)}
        write_record(job.record, {**record(identity, device, time.monotonic() - start), "files": files})
    return holds
