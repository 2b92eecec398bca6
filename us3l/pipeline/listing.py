"""`us3l plan`: a listing of what params.yaml makes, what is still to do, and what that will cost."""

import yaml
from rich.console import Console
from rich.table import Table

from us3l.params.runs import PretrainRun
from us3l.params.schema import MAX_LISTED
from us3l.pipeline.code import RUN_STAGES
from us3l.pipeline.costs import FREE, Cost, RecordedCosts
from us3l.pipeline.dvc_file import DVC_FILE, missing_stages, superfluous_stages
from us3l.pipeline.lineage import Changes, jobs_to_do
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.pipeline.plan.run import RunPlan, RunStage
from us3l.pipeline.watching.job_status import running_commands
from us3l.utils.errors import UserError, in_one_line

UNLIMITED = 10_000  # columns, so that rich cuts nothing off; a terminal wraps long lines


def show(plan: Plan, study: str | None) -> None:
    """List the runs of `study`, or of the studies to build, with the number of jobs that are up to date per stage."""
    everything = jobs(plan, studies(plan, study))
    to_do, running = jobs_to_do(everything), running_commands()
    by_run, stages = _by_run(everything), _stages(everything)
    table = _table("study", "run", "weights", "dataset", "backbone", "widths", "seeds", *stages)
    for run in [run for run in plan.runs.values() if run in by_run]:
        done = [_done([job for job in by_run[run] if job.stage == stage], to_do, running) for stage in stages]
        facts = (run.study, run.name, _weights(run), run.data.name, run.backbone, _widths(run), str(len(run.seeds)))
        table.add_row(*facts, *done)
    console = Console(width=UNLIMITED, highlight=False)
    console.print(table)
    for job in everything:
        if not isinstance(job, RunStage):
            state = "running" if job.command in running else "to do" if job in to_do else "up to date"
            print(f"{job.command}: {state}")
    print(f"{len(to_do)} of {len(everything)} jobs to do")
    for sentence in [*_about_tables(plan, list(by_run)), *_about_dvc(plan)]:
        print(in_one_line(sentence))


def show_costs(plan: Plan, study: str | None) -> None:
    """List the runs that have jobs to do, the cheapest first, with costs estimated from records of similar jobs."""
    everything = jobs(plan, studies(plan, study))
    to_do = jobs_to_do(everything)
    recorded = RecordedCosts(jobs(plan, [*plan.studies]))
    by_run, stages = _by_run(list(to_do)), _stages(everything)
    known: dict[RunPlan, Cost] = {}
    for run, run_jobs in by_run.items():
        costs = [cost for job in run_jobs if (cost := recorded.estimate(job))]
        if len(costs) == len(run_jobs):
            known[run] = sum(costs, FREE)
    table = _table("study", "run", *stages, "hours", "GPU-hours")
    unknown = [run for run in by_run if run not in known]
    for run in [*sorted(known, key=lambda run: (known[run].gpu_hours, known[run].hours)), *unknown]:
        counts = [str(sum(job.stage == stage for job in by_run[run])) for stage in stages]
        table.add_row(run.study, run.name, *counts, *_hours(known.get(run)))
    console = Console(width=UNLIMITED, highlight=False)
    console.print(table)
    is_known = known or not unknown
    total = " hours, ".join(_hours(sum(known.values(), FREE) if is_known else None))
    more = f"; runs that no record tells of: {len(unknown)}" if unknown else ""
    print(f"{len(to_do)} of {len(everything)} jobs to do: {total} GPU-hours{more}")


def show_run_in_full(plan: Plan, address: str) -> None:
    """Print as YAML what determines a run: its settings with all defaults, its data set, protocol, seeds and widths.

    Raises UserError where params.yaml has no such run, or the address is not STUDY/RUN.
    """
    study, slash, name = address.partition("/")
    if not slash:
        raise UserError(
            f"--show {address}: must be STUDY/RUN, such as {'/'.join(next(iter(plan.runs), ('STUDY', 'RUN')))}"
        )
    run = plan.run(study, name)
    content = {
        "run": run.run.model_dump(mode="json"),
        "datasets": {run.data.name: run.data.dataset.model_dump(mode="json")},
        "protocols": {run.protocol_name: run.protocol.model_dump(mode="json")},
        "seeds": list(run.seeds),
        "widths": list(run.widths),
    }
    print(yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=116), end="")


def _about_tables(plan: Plan, runs: list[RunPlan]) -> list[str]:
    """Name the runs whose numbers no table shows."""
    shown = {cell.run for table in plan.tables.values() for cell in table.cells}
    names = [f"{run.study}/{run.name}" for run in runs if run not in shown]
    return [f"in no table: {_some(names)}"] if names else []


def _about_dvc(plan: Plan) -> list[str]:
    """Describe what dvc.yaml lacks of the studies to build, or has besides them; nothing without a dvc.yaml."""
    if not DVC_FILE.is_file():
        return []
    lists = {"lacks": missing_stages(plan), "has, beside the studies to build,": superfluous_stages(plan)}
    return [f"{DVC_FILE} {what} {_some(names)}: `us3l dvc` writes it" for what, names in lists.items() if names]


def _some(names: list[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + (f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else "")


def studies(plan: Plan, study: str | None) -> list[str]:
    """Return `study`, or the studies to build. Raises UserError where params.yaml has no such study."""
    if study is None:
        return plan.build
    plan.require_study(study)
    return [study]


def _by_run(jobs: list[Job]) -> dict[RunPlan, list[Job]]:
    runs: dict[RunPlan, list[Job]] = {}
    for job in jobs:
        if isinstance(job, RunStage):
            runs.setdefault(job.run, []).append(job)
    return runs


def _stages(jobs: list[Job]) -> list[str]:
    """Return the stages of runs that the jobs have, in order."""
    present = {job.stage for job in jobs}
    return [stage for stage in RUN_STAGES if stage in present]


def _weights(run: RunPlan) -> str:
    """Describe where a run has its weights from, and from which other run."""
    words = {"untrained": "initial", "import": "imported", "pretrain": "trained", "prune": "pruned", "reuse": "reused"}
    kind, source = words[run.run.kind], run.weights_from
    if source is None:
        return kind
    name = source.name if source.study == run.study else f"{source.study}/{source.name}"
    return f"{kind}, teacher {name}" if isinstance(run.run, PretrainRun) else f"{kind} {name}"


def _widths(run: RunPlan) -> str:
    """Format a run's widths; more than 8 as their number and range."""
    if len(run.widths) > 8:
        return f"{len(run.widths)} from {min(run.widths):g} to {max(run.widths):g}"
    return " ".join(f"{width:g}" for width in run.widths)


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _done(jobs: list[Job], to_do: dict[Job, Changes], running: set[str]) -> str:
    """Count the jobs that are up to date, and those that run."""
    if not jobs:
        return "-"
    count = sum(job.command in running for job in jobs)
    return f"{sum(job not in to_do for job in jobs)}/{len(jobs)}{f', {count} running' if count else ''}"


def _hours(cost: Cost | None) -> tuple[str, str]:
    return (_three_decimals(cost.hours), _three_decimals(cost.gpu_hours)) if cost else ("?", "?")


def _three_decimals(hours: float) -> str:
    """Format hours so that only none at all are 0.000."""
    return "<0.001" if 0 < hours < 0.0005 else f"{hours:.3f}"
