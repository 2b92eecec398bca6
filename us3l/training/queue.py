"""Queue of a teacher's embeddings of earlier steps (MoCo, arXiv 1911.05722)."""

import torch
from torch import Tensor
from torch.nn import functional as F


class Queue:
    """The teacher's latest embeddings, of norm 1: `values` [K, D], random at first; the oldest are replaced first."""

    def __init__(self, size: int, dimension: int, seed: int, device: torch.device) -> None:
        noise = torch.randn(size, dimension, generator=torch.Generator().manual_seed(seed))
        self.values = F.normalize(noise.to(device, torch.get_default_dtype()), dim=1)
        self.position = torch.zeros(1, dtype=torch.long)  # of the oldest

    def enqueue(self, embeddings: Tensor) -> None:
        """Replace the oldest N embeddings by these [N, D]; N divides K."""
        begin = int(self.position)
        self.values[begin : begin + len(embeddings)] = F.normalize(embeddings, dim=1)
        self.position.add_(len(embeddings)).remainder_(len(self.values))
