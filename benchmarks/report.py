"""benchmarks/README.md, written from the records of measurements alone."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.compare import OURS, WHOLE
from benchmarks.parts import PARTS, record_path
from us3l.utils.atomic import atomic_write, require_folder
from us3l.utils.records import read_record

DEVICES = {"cpu": "CPU", "cuda": "GPU"}
Record = dict[str, Any]
Records = dict[str, Record]  # by device

INTRODUCTION = """\
# Benchmarks

`python -m benchmarks` measures us3l ("ours") against the straightforward way (`benchmarks/straightforward`:
torchvision's transforms on single images, weights sliced within each layer, one tensor after the other), and against
other packages where they are installed (`pip install us3l[bench]`). The last two parts measure a step against itself,
without one of its fast paths and recorded as a CUDA graph. `python -m benchmarks --report benchmarks/README.md` writes
this page from the records in `{folder}`, which hold every turn.

* A figure is the median of n turns, with the smallest and the largest in brackets. The sides take turns in one process,
  after a turn of each that is not timed. *Times as fast* is the median of the ratios of paired turns: above 1, ours is
  faster.
* On a CPU with one thread the time is process time, which other work on the machine disturbs least; on a GPU, and with
  several threads, where other processes load images, it is wall-clock time.
* A student's time runs from the gradients of the width before it to its own.
* Memory is what the first turn adds at its peak to what both sides hold, including an optimizer's state if that turn
  creates it; the memory of processes that load images is not counted.
* Floating-point operations are two for each multiply-accumulate, and a backward pass has twice as many as its forward
  pass. A share is relative to the device's measured peak rate: of floating-point operations in a matrix product or a
  convolution, or of bytes read and written by a copy. Above 100%, a cache holds the bytes.
* An empty cell was not measured.
"""
GPU_MISSING = "GPU figures are still to be measured, by `python -m benchmarks --device cuda`."


def write_report(results: Path, page: Path) -> None:
    """Write a page of the results in a folder. Raises UserError if a record is damaged, or the page has no folder."""
    require_folder(page.parent, "give --report a page in one that is there")
    text = report(results)
    with atomic_write(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report(results: Path) -> str:
    records = {part: _records(results, part) for part in PARTS}
    sections = [INTRODUCTION.format(folder=results.name)]
    if not any("cuda" in found for found in records.values()):
        sections.append(GPU_MISSING + "\n")
    for part, found in records.items():
        sections.append(f"## {part}\n\n" + (_section(found) if found else "Not measured.\n"))
    if any(records.values()):
        sections.append(_circumstances(records))
    return "\n".join(sections)


def _records(results: Path, part: str) -> Records:
    paths = {device: record_path(results, part, device) for device in DEVICES}
    return {device: read_record(path) for device, path in paths.items() if path.exists()}


def _section(records: Records) -> str:
    times = ["", "time of", "against", *_for_each_device(records, "theirs", "ours", "times as fast")]
    rates = ["", "side", *_for_each_device(records, "images/s", "TFLOP/s", "share", "memory")]
    tables = _table(times, _comparisons(records)), _table(rates, _rates(records))
    return "\n".join((*tables, _notes(records)))


def _for_each_device(records: Records, *columns: str) -> list[str]:
    return [f"{DEVICES[device]}: {column}" for device in records for column in columns]


def _comparisons(records: Records) -> Iterable[list[str]]:
    """Yield a row for each case and each other side, and rows for the parts of a case."""
    for name in _cases(records):
        for other in _others(records, name):
            for part in _parts(records, name, other):
                label = [name, _unit(records, name)] if part == WHOLE else [f"· {part}", "step at one width"]
                yield [*label, other, *_device_cells(records, name, 3, partial(_comparison, other=other, part=part))]


def _comparison(case: Record, other: str, part: str) -> list[str]:
    if other in case["absent"]:
        return ["", _seconds(_spread(case, OURS, part)), ""]
    ratio = case["times_as_fast"][other][part]
    theirs, ours = (_seconds(_spread(case, side, part)) for side in (other, OURS))
    return [theirs, ours, f"**{ratio['median']:.2f}** [{ratio['min']:.2f}, {ratio['max']:.2f}]"]


def _spread(case: Record, side: str, part: str) -> Record:
    measured = case["sides"][side]
    return measured["seconds"] if part == WHOLE else measured["parts"][part]


def _rates(records: Records) -> Iterable[list[str]]:
    for name in _cases(records):
        for side in [OURS, *_others(records, name)]:
            yield [name, side, *_device_cells(records, name, 4, partial(_rate, side=side))]


def _rate(case: Record, side: str) -> list[str]:
    if side not in case["sides"]:
        return [""] * 4
    measured = case["sides"][side]
    share = measured.get("share_of_arithmetic", measured.get("share_of_copy"))
    peak = "arithmetic" if "share_of_arithmetic" in measured else "copy"
    return [
        f"{measured['images_per_second']:,.0f}" if "images_per_second" in measured else "",
        f"{measured['flops'] / 1e12:.3g}" if "flops" in measured else "",
        f"{share:.1%} of {peak}" if share else "",
        "" if measured["peak_memory"] is None else f"{measured['peak_memory'] / 2**20:,.0f} MiB",
    ]


def _device_cells(records: Records, name: str, columns: int, cells: Callable[[Record], list[str]]) -> list[str]:
    """Build the cells of a case on each measured device; they are empty if the case was not measured there."""
    row: list[str] = []
    for device in records:
        case = _case(records, device, name)
        row += cells(case) if case else [""] * columns
    return row


def _case(records: Records, device: str, name: str) -> Record | None:
    return next((case for case in records[device]["cases"] if case["name"] == name), None)


def _cases(records: Records) -> list[str]:
    return list(dict.fromkeys(case["name"] for record in records.values() for case in record["cases"]))


def _others(records: Records, name: str) -> list[str]:
    """Name the sides of a case other than ours, installed or not."""
    cases = [case for device in records if (case := _case(records, device, name))]
    names = [side for case in cases for side in [*case["sides"], *case["absent"]]]
    return [side for side in dict.fromkeys(names) if side != OURS]


def _parts(records: Records, name: str, other: str) -> list[str]:
    cases = [case for device in records if (case := _case(records, device, name))]
    return list(dict.fromkeys([WHOLE, *(part for case in cases for part in case["times_as_fast"].get(other, {}))]))


def _unit(records: Records, name: str) -> str:
    return next(case["unit"] for device in records if (case := _case(records, device, name)))


def _seconds(spread: Record) -> str:
    """Format seconds in the unit that suits the median."""
    units = {"s": 1, "ms": 1e-3, "µs": 1e-6}
    unit = next((unit for unit, size in units.items() if spread["median"] >= size), "µs")
    median, low, high = (f"{spread[key] / units[unit]:.3g}" for key in ("median", "min", "max"))
    return f"{median} {unit} [{low}, {high}]"


def _notes(records: Records) -> str:
    """Describe the cases of each device; cases with the same note share a line."""
    names: dict[tuple[str, str], list[str]] = {}
    for device, record in records.items():
        for case in record["cases"]:
            names.setdefault((DEVICES[device], case["note"]), []).append(case["name"])
    return "".join(f"* {device}, {'; '.join(cases)}: {note}.\n" for (device, note), cases in names.items())


def _circumstances(records: dict[str, Records]) -> str:
    """Describe how each record was measured, and on which machines."""
    by_name = {f"{part}-{device}.json": each for part, found in records.items() for device, each in found.items()}
    header = ["record", "n", "threads", "precision", "load", "commit", "finished", "command"]
    machines = dict.fromkeys(_machine(record) for record in by_name.values())
    rows = _table(header, (_circumstance(name, record) for name, record in by_name.items()))
    return "## Circumstances\n\n" + rows + "\n" + "".join(f"* {machine}\n" for machine in machines)


def _circumstance(name: str, record: Record) -> list[str]:
    git, load = record["git"], " to ".join(f"{each:.1f}" for each in record["load"])
    commit = f"{git['commit'][:12]}{', edited' if git['dirty'] else ''}" if git else ""
    settings = [str(record["repeats"]), str(record["hardware"]["threads"]), record["precision"]]
    return [name, *settings, load, commit, record["finished"], f"`{record['command']}`"]


def _machine(record: Record) -> str:
    hardware, peak = record["hardware"], record["ceilings"]
    machine = f"{hardware['cpu']}, {hardware['cores']} cores{', ' + hardware['gpu'] if 'gpu' in hardware else ''}"
    rates = f"{peak['flops'] / 1e12:.3g} TFLOP/s, and {peak['bytes_per_second'] / 1e9:.3g} GB/s read and written"
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    return f"{machine}: at most {rates}; {versions}."


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
