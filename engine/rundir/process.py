"""Who runs in a run directory: ``proc.json``, checked before any signal."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from engine import __version__
from engine.rundir.files import write_whole
from engine.rundir.paths import RunDir

START_TICKS_FIELD = 19  # of /proc/PID/stat, counted behind the name in brackets


def boot_id() -> str:
    """What tells one boot of this machine from another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: unlike its creation time it survives a clock that is set."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[START_TICKS_FIELD])
    except (OSError, ValueError, IndexError):
        return None


def identity() -> dict[str, Any]:
    """Facts that only this process has."""
    me = psutil.Process()
    return {
        "pid": me.pid,
        "pgid": os.getpgid(0),
        "create_time": me.create_time(),
        "start_ticks": start_ticks(me.pid),
        "boot_id": boot_id(),
        "host": socket.gethostname(),
    }


def write_process(run: RunDir, versions: dict[str, str], supervisor: Mapping[str, Any] | None = None) -> None:
    """Record who runs: pid, group, start, boot, host, versions; of ranks that were started here their supervisor.

    Raises OSError.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    facts = {**(supervisor or identity()), "ranks": ranks, "versions": {"wmdd-tui": __version__, **versions}}
    write_whole(run.process_file, json.dumps(facts, indent=1).encode())


def living(facts: Mapping[str, Any] | None) -> psutil.Process | None:
    """The process that recorded these facts, if it still lives on this host in this boot."""
    if not facts or facts.get("host") != socket.gethostname() or facts.get("boot_id") != boot_id():
        return None
    try:
        process = psutil.Process(int(facts["pid"]))
        ticks = start_ticks(process.pid)
        if ticks is not None and isinstance(facts.get("start_ticks"), int):
            same = ticks == facts["start_ticks"]
        else:
            same = abs(process.create_time() - float(facts["create_time"])) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, KeyError, TypeError, ValueError):
        return None


def identified(run: RunDir) -> psutil.Process | None:
    """The engine's process if it is this very process, on this host, in this boot; else None."""
    return living(run.process())


def kill(run: RunDir) -> bool:
    """SIGKILL the engine's process group after checking its identity. True if a signal was sent."""
    process = identified(run)
    if process is None:
        return False
    try:
        group = os.getpgid(process.pid)
        if group == process.pid:
            os.killpg(group, 9)
        else:
            process.kill()
    except (OSError, psutil.Error):
        return False
    return True
