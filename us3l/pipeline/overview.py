"""What the report says of the studies, from records alone: results, hours, hardware and commits of each stage."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from us3l.pipeline.code import RUN_STAGES
from us3l.pipeline.plan.job import Job
from us3l.pipeline.plan.plan import Plan, jobs
from us3l.utils.errors import UserError
from us3l.utils.records import read_record

FIGURES = {
    "accuracy": "Accuracy against width and against multiply-accumulates: mean and 95% interval (Student's t over "
    "seeds; of one seed Wilson's, over test images), and every seed as a small circle. A row that costs less than a "
    "hundredth of the dearest network is a line.",
    "agreement": "The share of test images to which the networks of two widths give the same class; mean over seeds.",
    "training": "Losses and spread of the embeddings by the width's place in a step, and the learning rate; mean over "
    "seeds, bands from the least to the greatest.",
    "views": "Training images as networks see them: in the test view, in two epochs of a training, in the linear view.",
    "embeddings": "Test images as one network sees them at three of its widths (t-SNE), as numbers of their classes.",
}


class Overview:
    """The studies that params.yaml builds, as the templates in workflow/report ask for them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def studies(self) -> Iterator[dict[str, Any]]:
        """Yield each study to build, with a sentence about it and what its stages cost."""
        for name in self._plan.build:
            runs = [run for run in self._plan.runs.values() if run.study == name]
            seeds = sorted({seed for run in runs for seed in run.seeds})
            data = ", ".join(dict.fromkeys(run.data.name for run in runs))
            sentence = f"{len(runs)} runs with the seeds {', '.join(map(str, seeds))}, on {data}."
            yield {"name": name, "sentence": sentence, "stages": list(_stages(jobs(self._plan, [name])))}

    def table(self, study: str, name: str) -> dict[str, str]:
        """Return title and caption of a table, as its record has them."""
        record = read_record(self._plan.table(study, name).file("json"))
        return {"title": record["title"], "caption": record["caption"]}

    def figure(self, study: str, name: str) -> str:
        """Describe a figure."""
        return FIGURES[self._plan.figure(study, name).kind]


def _stages(everything: list[Job]) -> Iterator[dict[str, Any]]:
    """Sum up the records of each stage of runs."""
    for stage in RUN_STAGES:
        planned = [path for job in everything if job.stage == stage for path in job.records]
        records = [record for path in planned if (record := _record(path))]
        if planned:
            yield {
                "name": stage,
                "results": f"{len(records)} of {len(planned)}",
                "hours": f"{sum(record['seconds'] for record in records) / 3600:.3g}",
                "gpu_hours": f"{sum(record['gpu_hours'] for record in records):.3g}",
                "hardware": _distinct(record["hardware"].get("gpu") or record["hardware"]["cpu"] for record in records),
                "commits": _distinct(record["git"]["commit"][:10] for record in records if record["git"]),
            }


def _record(path: Path) -> dict[str, Any] | None:
    try:
        return read_record(path)
    except UserError:  # not made yet, or damaged, as `us3l verify` says
        return None


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts)) or "—"
