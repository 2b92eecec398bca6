"""benchmarks/README.md, from the records that are there and nothing else."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from us3l.bench.parts import PARTS, result
from us3l.files import replacing
from us3l.records import read_record

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
Record = dict[str, Any]
Records = dict[str, Record]  # by device

INTRODUCTION = """\
# Benchmarks

What `us3l bench` measured: ours against the straightforward way (`us3l/bench/straightforward`: torchvision's transforms
on single images, weights cut within each layer, one tensor after the other), and against other packages where these are
installed (`pip install us3l[bench]`). `us3l bench --report` wrote this page from the records in `{folder}`.

A figure is the median of n turns, with the smallest and the largest in brackets. The sides take turns in one process,
and *times as fast* is the median of the ratios of paired turns: above 1, ours is faster. {clock}
A step of a training is timed as a whole, and its students by the laps between the gradients of two widths. *Memory* is
what a turn adds at its peak to what both sides hold; that of processes that load images is not counted. Operations are
two for each multiply-accumulate, and a backward pass has twice those of its forward pass; the ceilings are a product of
square matrices and a copy, measured in the same process. A share of the copy above 100% means that a cache holds what is
moved. An empty cell was not measured; one that says so names a package that was not installed.
"""
CLOCK = (
    "On a CPU with one thread a ratio is of process time, which other work on the machine disturbs least; with several "
    "threads, whose loading is done by other processes, and on a GPU it is of the wall clock."
)
GPU_MISSING = "GPU figures are still to be measured, by `us3l bench --device cuda`."


def write_report(results: Path) -> None:
    """Write README.md beside the folder of results. Raises UserError where a record is damaged."""
    with replacing(results.parent / "README.md") as temporary:
        temporary.write_text(report(results))


def report(results: Path) -> str:
    records = {part: _records(results, part) for part in PARTS}
    sections = [INTRODUCTION.format(folder=results.name, clock=CLOCK)]
    if not any("cuda" in found for found in records.values()):
        sections.append(GPU_MISSING + "\n")
    for part, found in records.items():
        sections.append(f"## {part}\n\n" + (_section(found) if found else "Not measured.\n"))
    sections.append(_circumstances(records))
    return "\n".join(sections)


def _records(results: Path, part: str) -> Records:
    paths = {device: result(results, part, device) for device in DEVICES}
    return {device: read_record(path) for device, path in paths.items() if path.exists()}


def _section(records: Records) -> str:
    comparison = _table(["", "against", *_for_each_device("theirs", "ours", "times as fast")], _comparisons(records))
    rates = _table(["", "side", *_for_each_device("images/s", "TFLOP/s", "share", "memory")], _rates(records))
    return f"{comparison}\n{rates}\n{_notes(records)}"


def _for_each_device(*columns: str) -> list[str]:
    return [f"{said}: {column}" for said in DEVICES.values() for column in columns]


def _comparisons(records: Records) -> Iterable[list[str]]:
    """A row for each case and each other side, and rows for the parts of a case."""
    for name in _cases(records):
        for other in _others(records, name):
            for part in _parts(records, name, other):
                label = name if part == "whole" else f"· {part}"
                yield [label, other, *_of_devices(records, name, 3, lambda case, o=other, p=part: _compared(case, o, p))]


def _compared(case: Record, other: str, part: str) -> list[str]:
    if other in case["absent"]:
        return ["not installed", _seconds(_spread(case, "ours", part)), ""]
    ratio = case["times_as_fast"][other].get(part)
    theirs, ours = (_seconds(_spread(case, side, part)) for side in (other, "ours"))
    return [theirs, ours, f"**{ratio['median']:.2f}** [{ratio['min']:.2f}, {ratio['max']:.2f}]"]


def _spread(case: Record, side: str, part: str) -> Record:
    of_side = case["sides"][side]
    return of_side["seconds"] if part == "whole" else of_side["parts"][part]


def _rates(records: Records) -> Iterable[list[str]]:
    for name in _cases(records):
        for side in ["ours", *_others(records, name)]:
            yield [name, side, *_of_devices(records, name, 4, lambda case, side=side: _rate(case, side))]


def _rate(case: Record, side: str) -> list[str]:
    if side not in case["sides"]:
        return [""] * 4
    made = case["sides"][side]
    share = made.get("share_of_matmul", made.get("share_of_copy"))
    of = "matrix product" if "share_of_matmul" in made else "copy"
    return [
        f"{made['images_per_second']:,.0f}" if "images_per_second" in made else "",
        f"{made['flops'] / 1e12:.3g}" if "flops" in made else "",
        f"{share:.1%} of the {of}" if share else "",
        "" if made["peak_memory"] is None else f"{made['peak_memory'] / 2**20:,.0f} MiB",
    ]


def _of_devices(records: Records, name: str, columns: int, cells: Any) -> list[str]:
    """The cells of a case on each device, empty where it was not measured."""
    row: list[str] = []
    for device in DEVICES:
        case = _case(records, device, name)
        row += cells(case) if case else [""] * columns
    return row


def _case(records: Records, device: str, name: str) -> Record | None:
    cases = records[device]["cases"] if device in records else []
    return next((case for case in cases if case["name"] == name), None)


def _cases(records: Records) -> list[str]:
    return list(dict.fromkeys(case["name"] for record in records.values() for case in record["cases"]))


def _others(records: Records, name: str) -> list[str]:
    """The sides of a case that are not ours, installed or not."""
    cases = [case for device in records if (case := _case(records, device, name))]
    names = [side for case in cases for side in [*case["sides"], *case["absent"]]]
    return [side for side in dict.fromkeys(names) if side != "ours"]


def _parts(records: Records, name: str, other: str) -> list[str]:
    cases = [case for device in records if (case := _case(records, device, name))]
    return list(dict.fromkeys(["whole", *(part for case in cases for part in case["times_as_fast"].get(other, {}))]))


def _seconds(spread: Record) -> str:
    """In the unit that suits the median."""
    unit, factor = next(
        (unit, factor) for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)) if spread["median"] * factor >= 1 or unit == "µs"
    )
    median, low, high = (f"{spread[key] * factor:.3g}" for key in ("median", "min", "max"))
    return f"{median} {unit} [{low}, {high}]"


def _notes(records: Records) -> str:
    lines = []
    for device, record in records.items():
        for case in record["cases"]:
            lines.append(f"* {DEVICES[device]}, {case['name']}: seconds a{'n' * (case['unit'][0] in 'aeiou')} {case['unit']}; {case['note']}.")
    return "\n".join(lines) + "\n"


def _circumstances(records: dict[str, Records]) -> str:
    header = ["record", "n", "run", "threads", "precision", "hardware", "ceilings", "versions", "load", "commit", "finished", "command"]
    rows = [
        _circumstance(f"{part}-{device}.json", record)
        for part, found in records.items()
        for device, record in found.items()
    ]
    return "## How each record was made\n\n" + (_table(header, rows) if rows else "There is none.\n")


def _circumstance(name: str, record: Record) -> list[str]:
    hardware, most, git = record["hardware"], record["ceilings"], record["git"]
    ceilings = f"{most['flops'] / 1e12:.3g} TFLOP/s, {most['bytes_per_second'] / 1e9:.3g} GB/s"
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    commit = f"{git['commit'][:12]}{' with edits' if git['dirty'] else ''}" if git else ""
    where = f"{hardware.get('gpu', '')} {hardware['cpu']}, {hardware['cores']} cores".strip()
    load = " to ".join(f"{each:.1f}" for each in record["load"])
    made = [str(record["repeats"]), record["run"], str(hardware["threads"]), record["precision"]]
    return [name, *made, where, ceilings, versions, load, commit, record["finished"], f"`{record['command']}`"]


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
