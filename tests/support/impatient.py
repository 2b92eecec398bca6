"""Snakemake that asks Slurm for the states of jobs each second; the plugin takes 10 s longer each time."""

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
main()
