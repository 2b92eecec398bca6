"""Exports in params.yaml: networks of a run that the workflow writes as folders which run without this package."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from us3l.params.schema import Name, Seed, StrictModel, Width


class Export(StrictModel):
    """Networks of a run, each written as a folder that runs without this package: see docs/exports.md."""

    run: Name
    """Run of this study whose networks are exported."""
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    """Seeds of the study; null takes all of them."""
    widths: Annotated[list[Width], Field(min_length=1, max_length=100)] | None = None
    """Any widths of the run's training; null takes those that the study evaluates."""
    formats: tuple[Literal["onnx", "pt2"], ...] = ("onnx", "pt2")
    """Files besides model.py with model.safetensors."""
    head: Annotated[bool, Strict()] = False
    """With the classifier that the evaluation trained."""
