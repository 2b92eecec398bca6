"""Counter-based random numbers: a number depends on what it is for, never on how many were drawn before.

Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011) turns a counter of four 32-bit words
and a key of two into four random words. The key is the seed. The counter is the address: the block of numbers, the item
(such as an image), the epoch, and the purpose with its part. Distinct addresses never share a number. All arithmetic is
on integers, so that every device computes the same bits.
"""

from enum import IntEnum
from typing import NamedTuple, cast

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
ORDER_PART = 0xFFFF  # the part reserved for permutations, so that a purpose can have both an order and draws


class Purpose(IntEnum):
    """Purpose of random numbers; a value never changes its meaning, or seeds would give other results."""

    ORDER = 0
    WIDTHS = 1
    AUGMENT = 2
    CALIBRATE = 3
    LINEAR_ORDER = 4
    LINEAR_AUGMENT = 5
    INIT = 6
    SHUFFLE = 7


class RandomKey(NamedTuple):
    """Address of random numbers, except for the item; epoch: in [0, 2**32); seeds equal modulo 2**64 are the same."""

    seed: int
    purpose: Purpose
    epoch: int


def uniform(key: RandomKey, address: Tensor, part: int | Tensor = 0, count: int = 1) -> Tensor:
    """Draw numbers [B, count] float64 in [0, 1), 53 random bits each, on the device of `address`.

    address: [B] int64 in [0, 2**32), such as the image; part: in [0, 2**16 - 1), such as the view, or [B] int64.
    """
    block = torch.arange((count + 1) // 2, device=address.device)
    part = part[:, None] if isinstance(part, Tensor) else part
    counter = (block, address[:, None], key.epoch, key.purpose << 16 | part)
    a, b, c, d = philox(counter, (key.seed & WORD, key.seed >> 32 & WORD))
    return torch.stack([_fraction(a, b), _fraction(c, d)], dim=2).flatten(1)[:, :count]


def permutation(key: RandomKey, n: int, device: torch.device) -> Tensor:
    """Return 0 ... n - 1 in random order, [n] int64."""
    return uniform(key, torch.arange(n, device=device), ORDER_PART).flatten().argsort(stable=True)


def philox(
    counter: tuple[Tensor | int, Tensor | int, Tensor | int, Tensor | int], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return four random 32-bit words in int64, of the shape that the words of the counter broadcast to.

    At least one word of the counter must be a tensor.
    """
    a, b, c, d = counter
    key_a, key_b = key
    for _ in range(10):
        # A product of 64 bits may wrap to a negative int64, whose shift copies the sign. The masks cut it off, and the
        # high words of b and d.
        product_a, product_c = a * 0xD2511F53, c * 0xCD9E8D57
        a, b = (product_c >> 32 ^ b ^ key_a) & WORD, product_c
        c, d = (product_a >> 32 ^ d ^ key_b) & WORD, product_a
        key_a, key_b = (key_a + 0x9E3779B9) & WORD, (key_b + 0xBB67AE85) & WORD
    return cast(tuple[Tensor, Tensor, Tensor, Tensor], (a, b & WORD, c, d & WORD))  # each depends on the whole counter


def _fraction(high: Tensor, low: Tensor) -> Tensor:
    return ((high >> 5 << 26) + (low >> 6)).double() * 2.0**-53
