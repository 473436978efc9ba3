"""The engine's lock: one engine a run directory, on any file system.

Where ``flock`` works, it decides. Where it does not, a claim file made exclusively does, and whether its owner lives
is asked of the process table or, for another host, of the heartbeat.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine.errors import RunDirError, Stopped
from engine.rundir.heartbeat import read_tail
from engine.rundir.paths import RunDir
from engine.rundir.process import identity, living

LOCK_PATIENCE_SECONDS = 2.0
#: A heartbeat older than this counts as none.
STALL_SECONDS = 30.0
LOOK_SECONDS = 0.2


@contextmanager
def hold_lock(run: RunDir, stop_asked: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Hold the engine's exclusive lock. Yields False where the file system has no ``flock`` and a claim file serves.

    Readers probe with a shared lock for an instant, so a refusal is retried for two seconds. A run that another host
    was at work on a moment ago is waited for until its heartbeat is old: such file systems may lock for one host
    only. Raises RunDirError, or Stopped when ``stop_asked()`` becomes true while it waits.
    """
    try:
        descriptor = os.open(run.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunDirError(
            f"run directory {run.path} cannot be written: {error.strerror}",
            "copy it to a disk you can write to, then resume the copy by its path",
        ) from None
    claimed = False
    try:
        locked = _lock(descriptor, run)
        _await_other_host(run, stop_asked)
        if not locked:
            _claim(run)
            claimed = True
        yield locked
    finally:
        if claimed:
            with suppress(OSError):
                run.claim_file.unlink()
        os.close(descriptor)


def _refusal(run: RunDir) -> RunDirError:
    return RunDirError(f"another engine is at work in {run.path}", f"stop it first: `wmdd-tui stop {run.id}`")


def _lock(descriptor: int, run: RunDir) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _refusal(run) from None
            time.sleep(0.05)
        except OSError:
            return False


def _claim(run: RunDir) -> None:
    """Make the claim file, which only one process can; a dead owner's is taken over. Raises RunDirError, OSError."""
    mine = json.dumps(identity()).encode()
    for _ in range(2):
        try:
            descriptor = os.open(run.claim_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if _claimant_lives(run):
                raise _refusal(run) from None
            with suppress(FileNotFoundError):
                run.claim_file.unlink()
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(mine)
        # Two that found the same dead owner may both have come so far; the file holds who came last.
        time.sleep(LOOK_SECONDS)
        if _read(run.claim_file) == mine:
            return
        raise _refusal(run)
    raise _refusal(run)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _claimant_lives(run: RunDir) -> bool:
    try:
        facts = json.loads(_read(run.claim_file))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):  # being written at this moment, or torn by a crash long ago
        with suppress(OSError):
            return time.time() - run.claim_file.stat().st_mtime < LOCK_PATIENCE_SECONDS
        return False
    if facts.get("host") == socket.gethostname():
        return living(facts) is not None
    return False  # of another host, which has been waited for


def _await_other_host(run: RunDir, stop_asked: Callable[[], bool]) -> None:
    """Wait until another host's engine has been silent for long enough. Raises RunDirError, Stopped."""
    facts: dict[str, Any] = run.process() or {}
    host, tail = facts.get("host"), read_tail(run.events_file)
    if host in (None, socket.gethostname()) or tail.end:
        return
    age = time.time() - tail.last
    # The hosts' clocks may differ: an age that cannot be is no age at all.
    silence = STALL_SECONDS - (age if age > 0 else 0.0)
    if silence <= 0:
        return
    with suppress(OSError):  # console.log may lie on a full disk
        print(f"host {host} was at work here; waiting {silence:.0f} s for a sign of it", file=sys.stderr, flush=True)
    deadline = time.monotonic() + silence
    while time.monotonic() < deadline:
        if read_tail(run.events_file).size != tail.size:
            raise RunDirError(
                f"another engine is at work in {run.path}, on host {host}",
                f"stop it first: `wmdd-tui stop {run.id}`",
            )
        if stop_asked():
            raise Stopped("stopped before it began")
        time.sleep(LOOK_SECONDS)


def lock_held(run: RunDir) -> bool | None:
    """Whether an engine holds the lock; None where that cannot be told (no file, no permission, no flock)."""
    try:
        descriptor = os.open(run.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False
