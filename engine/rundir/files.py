"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

#: What a killed process was writing lies under a hidden name with this ending.
PARTIAL = ".tmp"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def sync_rename(partial: Path, path: Path) -> None:
    """Give a file that was written piece by piece its name, once its content is on the disk. Raises OSError."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)


def clear_partials(folder: Path, older_than: float = 0.0) -> int:
    """Remove what killed processes left half-written below a folder; returns the bytes set free.

    Only for a folder nobody else writes to, or with an age in seconds that no write lasts.
    """
    freed = 0
    for file in folder.rglob(f".*{PARTIAL}"):
        with suppress(OSError):
            facts = file.lstat()
            if time.time() - facts.st_mtime >= older_than:
                file.unlink()
                freed += facts.st_size
    return freed
