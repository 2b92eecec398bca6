"""`us3l show`: where a number in a table comes from, and how to derive it again."""

from collections.abc import Iterator
from typing import Any

from us3l.params.schema import MAX_LISTED
from us3l.pipeline.identity import differences
from us3l.pipeline.lineage import Change
from us3l.pipeline.plan.plan import Plan
from us3l.pipeline.plan.run import NO_CAUSES, RunPlan, RunStage
from us3l.pipeline.plan.table import PlannedCell, TablePlan
from us3l.pipeline.provenance import describe_commit
from us3l.pipeline.tables.cells import Cell, read_cell
from us3l.pipeline.verify.selection import cell_address, cells_of
from us3l.utils.errors import UserError, in_one_line, shown

INDENT = " " * 12


def show_cell(plan: Plan, text: str) -> None:
    """Print all that is known of a cell. Raises UserError where `text` names none, several, or one without a result."""
    table, found = cells_of(plan, text)
    if len(found) > 1:
        addresses = [cell_address(table, cell) for cell in found]
        more = f" or {len(found) - MAX_LISTED} more" if len(found) > MAX_LISTED else ""
        raise UserError(f"{text}: names {len(found)} cells; type one: {' or '.join(addresses[:MAX_LISTED])}{more}")
    place = found[0]
    assert place.run  # as cells_of finds
    cell = read_cell(place, {})
    if not cell.evaluations:
        jobs = [RunStage(place.run, place.run.protocol.kind, seed).command for seed in place.run.seeds]
        raise UserError(f"{text}: no result yet; take it with `dvc pull`, or make it: us3l {' or us3l '.join(jobs)}")
    lines = [in_one_line(line) for line in _lines(table, cell, place.run)]
    print("\n".join(lines))


def _lines(table: TablePlan, cell: Cell, run: RunPlan) -> Iterator[str]:
    place = cell.place
    yield f"{table.study}/{table.name}: {place.row.label}, {place.width:g}x ({run.study} {run.name})"
    yield f"value       {_value(cell)}, {table.measure.lower()}, protocol {run.protocol_name}"
    yield from _titled("seeds", [_seed(each.seed, each.record) for each in cell.evaluations])
    first = cell.evaluations[0].record
    yield f"network     {first['parameters']:,} parameters, {first['macs']:,} MACs for an image"
    yield from _titled("files", map(str, cell.records))
    yield from _titled("commit", dict.fromkeys(map(_origin, cell.records.values())))
    hours, gpu_hours = (sum(record[key] for record in cell.records.values()) for key in ("seconds", "gpu_hours"))
    yield f"hours       {hours / 3600:.3f} of computing, {gpu_hours:.3f} of GPUs, for all that the cell rests on"
    yield from _titled("differs", _differences(table, place, run) or ["from no other row of this width"])
    yield f"again       us3l verify {cell_address(table, place)} --level 3"


def _titled(title: str, values: Any) -> Iterator[str]:
    for index, value in enumerate(values):
        yield f"{INDENT if index else title.ljust(len(INDENT))}{value}"


def _value(cell: Cell) -> str:
    if cell.wilson:
        low, high = cell.wilson
        return f"{cell.mean:.4g} [{low:.1f}, {high:.1f}], Wilson's 95% interval over the test images, one seed"
    n = f"{len(cell.values)} of {cell.planned}" if len(cell.values) < cell.planned else f"{len(cell.values)}"
    return f"{cell.mean:.4g} ± {cell.ci95:.2g}, mean and half of the 95% interval (Student's t) over seeds, n = {n}"


def _seed(seed: int, record: dict[str, Any]) -> str:
    low, high = record["interval"]
    return f"{seed}: {record['top1']:.4g} [{low:.1f}, {high:.1f}] of {record['n']:,} test images"


def _origin(record: dict[str, Any]) -> str:
    """Return commit and machine of a record."""
    hardware = record["hardware"]
    return f"{describe_commit(record['git']) or 'no git repository'}, {hardware.get('gpu') or hardware['cpu']}"


def _differences(table: TablePlan, place: PlannedCell, run: RunPlan) -> list[str]:
    """Describe for each other run in the cell's column what its settings are, and what this run's are."""
    others = {other.run: other.row.label for other in table.cells if other.width == place.width and other.run}
    found = []
    for other, label in others.items():
        if other is not run:
            changed = [
                f"{key} {_brief(now)} (here {_brief(was)})"
                for key, was, now in _changed(_settings(run), _settings(other))
            ]
            more = f", and {len(changed) - MAX_LISTED} more" if len(changed) > MAX_LISTED else ""
            found.append(f"{label}: {', '.join(changed[:MAX_LISTED]) or 'the same settings'}{more}")
    return found


def _changed(here: dict[str, Any], there: dict[str, Any]) -> list[Change]:
    """Return what differs; of runs of different kinds, in what both of them have."""
    found = differences(here, there)
    return found if here["kind"] == there["kind"] else [each for each in found if "absent" not in each[1:]]


def _brief(value: Any) -> str:
    """Name a setting by its kind where it has several keys."""
    if isinstance(value, dict):
        return str(value.get("kind") or value.get("name") or "set")
    return "none" if value is None else shown(value).strip("'")


def _settings(run: RunPlan) -> dict[str, Any]:
    """Return the settings that determine what a run makes."""
    settings = run.run.model_dump(mode="json", exclude=NO_CAUSES - {"dataset"})
    return {**settings, "protocol": run.protocol_name}
