"""Image files for tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def write(path: Path, seed: int, height: int, width: int) -> None:
    """Noise on a smooth picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((width, height), Image.BICUBIC)
    noisy = np.asarray(small).astype(float) + random.normal(0, 20, (height, width, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
