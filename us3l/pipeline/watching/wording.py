"""How numbers of a training read, in a log and in `us3l status`, which needs no PyTorch."""

from us3l.pipeline.watching.job_status import duration


def numbers(by_width: dict[str, float]) -> str:
    """Format numbers with the names of their widths: 1x 4.2100, between 4.3021."""
    return ", ".join(f"{name} {value:.4f}" for name, value in by_width.items())


def pace(images_per_second: float | None, seconds_left: float | None) -> str:
    """Format speed and time left, which are not known before the first step."""
    if images_per_second is None or seconds_left is None:
        return ""
    return f"  {images_per_second:,.0f} images/s  {duration(seconds_left)} left"
