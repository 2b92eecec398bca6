"""Short probes, for tests of something else: half of a small training would be its probe."""

import pytest

from us3l.pipeline.probes import evaluation, training


def shorten_probes(patch: pytest.MonkeyPatch) -> None:
    """Probe one step of a training, and one epoch of an evaluation."""
    patch.setattr(training, "points", lambda run: [0])
    patch.setattr(training, "STEPS", 1)
    patch.setattr(evaluation, "EPOCHS", 1)
