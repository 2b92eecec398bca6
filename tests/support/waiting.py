"""Waiting for what another process or thread does, with a deadline that only a fault reaches."""

import time
from collections.abc import Callable

SECONDS = 120  # that anything may take, on a machine that is busy


def until(happens: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Wait until something happens. Raises TimeoutError where it does not."""
    deadline = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
