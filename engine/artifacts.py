"""Content-addressed cache of stage outputs: teachers, statistics, barycenters. Torch-free.

A key is a hash of everything that determines the output, so a sweep over λ recomputes only recovery onward and a
changed teacher can never meet stale barycenters. Files appear whole; a damaged one is recomputed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.rundir import clear_partials, home, sync_rename, write_whole

#: Raised when a stage's output changes meaning; part of every key.
FORMAT = 1
#: No writing lasts as long: an older partial file is nobody's.
ABANDONED_SECONDS = 86400.0


def key_of(**facts: Any) -> str:
    """Hash of plain facts, independent of their order."""
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Cache:
    """Files under ``$WMDD_HOME/cache``; with ``enabled`` false nothing is found or kept."""

    enabled: bool = True

    def path(self, kind: str, key: str) -> Path:
        suffix = "npy" if kind == "features" else "ckpt"
        return home() / "cache" / f"{kind}-{key}.{suffix}"

    def find(self, kind: str, key: str) -> Path | None:
        path = self.path(kind, key)
        return path if self.enabled and path.is_file() else None

    def keep(self, kind: str, key: str, data: bytes) -> None:
        """Store an output. Raises OSError (a full disk); the caller decides that a run can do without a cache."""
        if self.enabled:
            path = self.path(kind, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)

    def keep_file(self, kind: str, key: str, source: Path) -> None:
        """Store an output that is a file already, as a link where the file system can. Raises OSError."""
        if self.enabled:
            path = self.path(kind, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source, path)


def clear_abandoned() -> None:
    """Remove what killed processes left half-written in the cache a day ago or longer."""
    clear_partials(home() / "cache", ABANDONED_SECONDS)


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under another name: a hard link where possible, else a copy; whole or not at all."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    sync_rename(partial, target)
