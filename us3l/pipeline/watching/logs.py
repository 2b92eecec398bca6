"""The folder of the logs: of Snakemake's rules, and of what a training tells other programs."""

import os
from pathlib import Path

from us3l.utils.errors import UserError

LOGS = Path("logs")


def require_log_folder(folder: Path = LOGS) -> Path:
    """Make a folder for logs, and return it. Raises UserError where it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "no permission"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise UserError(
            f"{folder}: no folder that logs can be written to ({reason}); move it away, or change its rights"
        )
    return folder
