"""What hostile input must never do: write outside its box, start a program, or hang. Watched by audit events."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis.configuration import set_hypothesis_home_dir

#: Of computing, and of waiting on a machine that is busy with other things.
LONGEST_SECONDS = 10.0
LONGEST_WAIT = 120.0
PROGRAMS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "subprocess.Popen", "pty.spawn")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
#: Where hypothesis keeps tables for itself.
OWN = tempfile.mkdtemp(prefix="wmdd-fuzz-tables-")
#: Libraries keep these for themselves.
HARMLESS = (OWN, "/dev/null", "/dev/urandom", "/dev/shm")


class Trespass(AssertionError):
    """Something that input must never bring about."""


class _Watch:
    box: Path | None = None
    broken: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _Watch.box is None:
        return
    if event in PROGRAMS:
        _Watch.broken.append(f"{event} {arguments!r}"[:300])
    elif event == "open":
        path, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) or any(letter in (mode or "") for letter in "wax+")
        if writes:
            _inside(event, path)
    elif event in CHANGES:
        # The second path of a renaming or link is the one that is made; a link's first is only pointed to.
        paths = arguments[1:2] if event in ("os.link", "os.symlink") else arguments[:2]
        for path in paths:
            _inside(event, path)


def _inside(event: str, path: object) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    text = os.path.abspath(os.fsdecode(path))
    box = _Watch.box
    if box is not None and not text.startswith((f"{box}{os.sep}", *HARMLESS)) and text != str(box):
        _Watch.broken.append(f"{event} {text}"[:300])


sys.addaudithook(_hook)
atexit.register(shutil.rmtree, OWN, ignore_errors=True)
set_hypothesis_home_dir(OWN)


def _too_long(number: int, _frame: FrameType | None) -> None:
    seconds, what = (LONGEST_SECONDS, "computing") if number == signal.SIGPROF else (LONGEST_WAIT, "waiting")
    raise Trespass(f"took longer than {seconds:.0f} s of {what}")


@contextmanager
def _limited() -> Iterator[None]:
    timers = ((signal.SIGPROF, signal.ITIMER_PROF, LONGEST_SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, LONGEST_WAIT))
    previous = {number: signal.signal(number, _too_long) for number, _, _ in timers}
    try:
        for _, timer, seconds in timers:
            signal.setitimer(timer, seconds)
        yield
    finally:
        for _, timer, _ in timers:
            signal.setitimer(timer, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def box() -> Iterator[Path]:
    """An empty folder with a home in it, the only place where anything may be written meanwhile. Raises Trespass."""
    folder = Path(tempfile.mkdtemp(prefix="wmdd-fuzz-"))
    home = os.environ.get("WMDD_HOME")
    os.environ["WMDD_HOME"] = str(folder / "home")
    _Watch.broken = []
    _Watch.box = folder
    try:
        with _limited():
            yield folder
    finally:
        _Watch.box = None
        if home is None:
            del os.environ["WMDD_HOME"]
        else:
            os.environ["WMDD_HOME"] = home
        shutil.rmtree(folder, ignore_errors=True)
    if _Watch.broken:
        raise Trespass(_Watch.broken[0])
