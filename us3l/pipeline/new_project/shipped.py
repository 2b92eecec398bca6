"""Files of a clone that a new project takes over; the wheel has copies of them: see pyproject.toml."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent.parent


def shipped(name: str) -> Path:
    """Return the path of a file: inside the package where it is installed from a wheel, at the top of a clone."""
    installed = _PACKAGE / "shipped" / name
    return installed if installed.is_file() else _PACKAGE.parent / name
