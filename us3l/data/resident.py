"""Data sets that lie whole in the memory of the device that computes."""

import numpy as np
import torch
from torch import Tensor


def resident(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of an array, mapped from a file or not, on the device."""
    return torch.from_numpy(np.array(array)).to(device)
