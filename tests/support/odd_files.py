"""What may stand in the place of a file, and is none."""

import os
import socket
from pathlib import Path


def odd_file(folder: Path, kind: str) -> Path:
    """Something in the place of a file, which is no file that can be read."""
    path = folder / "odd"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to(folder / "gone")
        case "looping link":
            path.symlink_to(path)
        case "huge":
            path.touch()
            os.truncate(path, 2**40)
        case "zero byte":
            path = folder / "odd\0"
    return path
