"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file beside `path` to the disk, then puts it in its place; what was there stays till then.

    Raises OSError where the disk is full or the folder cannot be written; nothing half made is left.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
