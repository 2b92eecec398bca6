"""The numbers of a table as DVC reads them: `dvc metrics show` and `dvc metrics diff` list them by row and width."""

from typing import Any

import yaml

from us3l.pipeline.tables.cells import Cell


def metrics(cells: list[Cell]) -> str:
    """Return the mean, half of the 95% interval over seeds, and number of seeds of each cell that has a result."""
    rows: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if cell.mean is not None:
            numbers = {"mean": cell.mean, "ci95": cell.ci95, "n": len(cell.values)}
            known = {name: number for name, number in numbers.items() if number is not None}
            rows.setdefault(cell.place.row.label, {})[f"{cell.place.width:g}x"] = known
    return yaml.safe_dump(rows, sort_keys=False, allow_unicode=True)
