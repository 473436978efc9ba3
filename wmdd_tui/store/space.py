"""Room for a run where it will be written: free space, and what a quota leaves of it. Torch-free."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

QUOTA_SECONDS = 3.0
BLOCK_BYTES = 1024
#: File systems whose free space is shared by many, where homes usually have a quota.
NETWORKED = frozenset({"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "afs", "panfs", "pvfs2"})


@dataclass(frozen=True)
class Room:
    """Bytes free on the file system of ``folder``; what the user's quota leaves there, None where none is known.

    ``shared_home``: the folder lies in the user's home on a network file system, whose quota cannot be read.
    """

    folder: Path
    free: int
    quota_left: int | None = None
    shared_home: bool = False

    @property
    def usable(self) -> int:
        return self.free if self.quota_left is None else min(self.free, self.quota_left)


def room_at(path: Path) -> Room:
    """Room where a folder lies, or would be made. Asks ``quota`` where that is installed; takes a moment."""
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    source, kind = _mounted(folder.resolve())
    left = quota_left(_quota_report(), source) if source else None
    shared = left is None and kind in NETWORKED and folder.resolve().is_relative_to(Path.home().resolve())
    return Room(folder, free, left, shared)


def _mounted(folder: Path) -> tuple[str, str]:
    """The device and kind of the file system a folder lies on."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    deepest = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return ("", "") if deepest is None else (deepest.device, deepest.fstype)


def _quota_report() -> str:
    if shutil.which("quota") is None:
        return ""
    try:
        done = subprocess.run(
            ["quota", "-w", "-v"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=QUOTA_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def quota_left(report: str, source: str) -> int | None:
    """Bytes that the output of ``quota -w -v`` leaves on a file system; None where it has no limit there."""
    for line in report.splitlines():
        words = line.split()
        if len(words) < 4 or words[0] != source:
            continue
        try:
            used, soft, hard = (int(word.rstrip("*")) for word in words[1:4])
        except ValueError:
            continue
        limit = hard or soft
        return max(0, limit - used) * BLOCK_BYTES if limit else None
    return None
