"""A table as a page: each number opens to its seeds, files, commits and hardware, and how it is derived again."""

from typing import Any

from jinja2 import Environment

from us3l.pipeline.plan.table import TablePlan
from us3l.pipeline.provenance import describe_commit
from us3l.pipeline.tables.cells import Cell, Evaluation

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: white; margin: 1.5em; }
h1 { font-size: 1.25em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .3em .7em; border-bottom: 1px solid #ccc; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
.rows td:first-child { min-width: 9em; }
button { font: inherit; color: #0b57a4; background: none; border: 0; padding: 0; cursor: pointer; white-space: nowrap;
  text-decoration: underline dotted; }
[popover] { max-width: min(75em, 94vw); max-height: 80vh; overflow: auto; box-sizing: border-box; padding: 1em;
  border: 1px solid #888; border-radius: 6px; box-shadow: 0 4px 24px #0004; }
[popover] h2 { font-size: 1.05em; margin-top: 0; }
code { font-size: .9em; overflow-wrap: anywhere; }
[popover] td, [popover] th { white-space: nowrap; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<div class="wide"><table class="rows">
<tr><th></th>{% for title in titles %}<th>{{ title }}</th>{% endfor %}</tr>
{% for row in rows %}
<tr><td>{{ row.label }}</td>{% for cell in row.cells %}<td>
{%- if cell.seeds %}<button popovertarget="{{ cell.id }}">{{ cell.text }}</button>{% else %}{{ cell.text }}{% endif -%}
</td>{% endfor %}{% for text in row.more %}<td>{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
<p>{{ about }}</p>
<p>Each number opens to what is behind it.</p>
{% for cell in rows | sum('cells', []) if cell.seeds %}
<div popover id="{{ cell.id }}">
<h2>{{ cell.label }} at {{ cell.width }}x: {{ cell.text }}</h2>
<p>{{ cell.cost }}; {{ cell.hours }}.</p>
<div class="wide"><table>
<tr><th>seed</th><th>top-1 (%)</th><th>95% over images</th><th>commit</th><th>hardware</th><th>evaluation</th></tr>
{% for seed in cell.seeds %}
<tr><td>{{ seed.seed }}</td><td>{{ seed.top1 }}</td><td>{{ seed.interval }}</td><td><code>{{ seed.commit }}</code></td>
<td>{{ seed.hardware }}</td><td><code>{{ seed.file }}</code></td></tr>
{% endfor %}
</table></div>
<p>Before them:</p>
<ul>
{% for path in cell.files %}
<li><code>{{ path }}</code></li>
{% endfor %}
</ul>
<p>Derive it again: <code>{{ cell.command }}</code></p>
</div>
{% endfor %}
</body>
</html>
"""


def page(table: TablePlan, rows: list[list[Cell]], titles: list[str], texts: list[list[str]], about: str) -> str:
    """Return the page of a table.

    titles, texts: of its columns, first those of the widths; about: the table's caption.
    """
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    shown = [
        {
            "label": row[0].place.row.label,
            "cells": [_shown(table, cell, text) for cell, text in zip(row, line, strict=False)],
            "more": line[len(row) :],
        }
        for row, line in zip(rows, texts, strict=True)
    ]
    return template.render(title=table.table.title, titles=titles, rows=shown, about=about) + "\n"


def _shown(table: TablePlan, cell: Cell, text: str) -> dict[str, Any]:
    """Return what the page says of a cell."""
    place = cell.place
    own = [_record(each) for each in cell.evaluations]
    known = {"id": f"row{place.number + 1}-{place.width:g}", "label": place.row.label, "width": f"{place.width:g}"}
    if not own:
        return known | {"text": text, "seeds": []}
    seconds, gpu_hours = (sum(record[key] for record in cell.records.values()) for key in ("seconds", "gpu_hours"))
    evaluations = {next(iter(each.records)) for each in cell.evaluations}
    return known | {
        "text": text,
        "seeds": [_seed(each) for each in cell.evaluations],
        "cost": f"{own[0]['parameters']:,} parameters, {own[0]['macs']:,} multiply-accumulates of an image",
        "hours": f"{seconds / 3600:.3g} hours of computing, {gpu_hours:.3g} GPU-hours, trainings included",
        "files": sorted(str(path) for path in cell.records if path not in evaluations),
        "command": table.verify_command(place),
    }


def _seed(evaluation: Evaluation) -> dict[str, Any]:
    [path, *_], record = evaluation.records, _record(evaluation)
    low, high = record["interval"]
    hardware = record["hardware"]
    return {
        "seed": evaluation.seed,
        "top1": f"{evaluation.top1:.2f}",
        "interval": f"[{low:.1f}, {high:.1f}] of {record['n']:,}",
        "commit": describe_commit(record["git"]) or "no repository",
        "hardware": hardware.get("gpu")
        or f"{hardware['cpu']}, {hardware.get('threads', 1)} of {hardware['cores']} cores",
        "file": str(path),
    }


def _record(evaluation: Evaluation) -> dict[str, Any]:
    return next(iter(evaluation.records.values()))
