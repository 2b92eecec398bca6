"""How many channels a layer keeps at a width."""


def scaled(channels: int, width: float, divisor: int = 8) -> int:
    """`channels * width`, rounded to a multiple of `divisor`, never below 90% of the product (MobileNet's rule)."""
    exact = channels * width
    rounded = max(1, int(exact + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * exact else rounded + divisor
