"""`us3l plan`: what params.yaml makes, which of it is there, and what the rest will cost, in the terminal."""

from rich.console import Console
from rich.table import Table

from us3l.costs import FREE, Benchmarks, Cost
from us3l.errors import UserError
from us3l.jobs import Job, jobs
from us3l.lineage import Changes, work
from us3l.plan import Plan, RunPlan

STAGES = ("pretrain", "calibrate", "linear")
UNLIMITED = 10_000  # columns: a terminal wraps long lines, and nothing is cut off


def show(plan: Plan, study: str | None) -> None:
    """List the runs of `study`, or of the studies to build: for each stage the jobs up to date, of all its jobs."""
    everything = jobs(plan, studies(plan, study))
    to_do = work(everything)
    table = _table("study", "run", "dataset", "backbone", "widths", "seeds", *STAGES)
    for run, mine in _by_run(everything).items():
        widths = " ".join(f"{width:g}" for width in run.widths)
        done = [_done([job for job in mine if job.stage == stage], to_do) for stage in STAGES]
        table.add_row(run.study, run.name, run.data.name, run.run.backbone, widths, str(len(run.seeds)), *done)
    console = Console(width=UNLIMITED, highlight=False)
    console.print(table)
    for job in everything:
        if not isinstance(job.of, RunPlan):
            console.print(f"{job.command}: {'to do' if job in to_do else 'up to date'}")
    console.print(f"{len(to_do)} of {len(everything)} jobs to do")


def show_costs(plan: Plan, study: str | None) -> None:
    """List the runs that have jobs to do with their cost, by the records of jobs like them; the cheapest first."""
    everything = jobs(plan, studies(plan, study))
    to_do = work(everything)
    benchmarks = Benchmarks(jobs(plan, [*plan.studies]))
    by_run = _by_run(list(to_do))
    bills = {}
    for run, mine in by_run.items():
        costs = [benchmarks.estimate(job) for job in mine]
        bills[run] = None if None in costs else sum(costs, FREE)
    table = _table("study", "run", *STAGES, "hours", "GPU-hours")
    known = {run: bill for run, bill in bills.items() if bill}
    unknown = [run for run in bills if run not in known]
    for run in [*sorted(known, key=lambda run: (known[run].gpu_hours, known[run].hours)), *unknown]:
        counts = [str(sum(job.stage == stage for job in by_run[run])) for stage in STAGES]
        table.add_row(run.study, run.name, *counts, *_hours(bills[run]))
    console = Console(width=UNLIMITED, highlight=False)
    console.print(table)
    total = " hours, ".join(_hours(sum(known.values(), FREE)))
    more = f"; runs that no record tells of: {len(unknown)}" if unknown else ""
    console.print(f"{len(to_do)} of {len(everything)} jobs to do: {total} GPU-hours{more}")


def studies(plan: Plan, study: str | None) -> list[str]:
    """`study`, or those to build. Raises UserError where params.yaml has no such study."""
    if study is not None and study not in plan.studies:
        raise UserError(f"params.yaml has no study {study!r}; it has: {', '.join(sorted(plan.studies))}")
    return [study] if study else plan.build


def _by_run(jobs: list[Job]) -> dict[RunPlan, list[Job]]:
    runs: dict[RunPlan, list[Job]] = {}
    for job in jobs:
        if isinstance(job.of, RunPlan):
            runs.setdefault(job.of, []).append(job)
    return runs


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold")
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _done(jobs: list[Job], to_do: dict[Job, Changes]) -> str:
    return f"{sum(job not in to_do for job in jobs)}/{len(jobs)}"


def _hours(cost: Cost | None) -> tuple[str, str]:
    return (f"{cost.hours:.3f}", f"{cost.gpu_hours:.3f}") if cost else ("?", "?")
