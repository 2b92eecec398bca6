"""The marker of tests that need a GPU."""

from collections.abc import Callable

import pytest
import torch

WITHOUT = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


def on_gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(WITHOUT(test))
