"""An embedding as the dashboard shows it: asked of ``wmdd-tui embed`` in a process of its own, and kept.

scikit-learn and POT take seconds to import and may measure for longer; here neither is imported. Answers lie in
``$WMDD_HOME/embeddings/<run>/``, beside the runs, never in them, and hold as long as the run's features do not change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine import rundir
from engine.errors import RunFailure
from engine.rundir import RunDir
from wmdd_tui.names import as_name, printable
from wmdd_tui.quantities import LARGEST

METHODS = ("pca", "t-sne")
#: Changed when the same features would give another answer.
FORM = 1
#: Answers kept of one run; the oldest go first.
MOST_KEPT = 8
POLL_SECONDS = 0.1
#: A run's engine comes before its picture.
NICENESS = 10
ERROR_LINES = 3
#: Which stage writes what the picture needs, and where.
SOURCES = (
    ("statistics", "features of the real images", ("checkpoints/features.npy", "checkpoints/statistics.ckpt")),
    ("barycenter", "barycenters", ("checkpoints/barycenter.ckpt",)),
    ("recover", "features of the synthetic images", ("report/image_features.npy",)),
)

Place = tuple[float, float]


class Placed(msgspec.Struct, frozen=True):
    """One class: places of its points in the plane, and its figures, which are those of ``embedding.Figures``."""

    label: int
    name: str
    real: list[Place]
    images: list[Place]
    barycenter: list[Place]
    w2_images: float
    w2_random: float
    w2_barycenter: float | None
    coverage: float
    coverage_random: float


class Embedding(msgspec.Struct, frozen=True):
    """All chosen classes in one plane."""

    method: str
    classes: list[Placed]


@dataclass(frozen=True)
class Wanted:
    """What is to be shown: a run's classes, by their words for ``--class`` (none: the first ten), and how."""

    run: RunDir
    classes: tuple[str, ...] = ()
    method: str = METHODS[0]

    def key(self) -> str:
        """Differs whenever the answer may: it names the request and the state of the files it is answered from."""
        facts: list[object] = [FORM, self.classes, self.method]
        for _, _, files in SOURCES:
            for name in files:
                try:
                    found = (self.run.path / name).stat()
                    facts.append((name, found.st_mtime_ns, found.st_size))
                except OSError:
                    facts.append(name)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def words_of(labels: Sequence[int], names: Sequence[str]) -> tuple[str, ...]:
    """What ``--class`` understands as these classes: numbers, and names where another class is called by the number."""
    return tuple(
        name if (name := names[label]) != str(label) and str(label) in names else str(label) for label in labels
    )


def lacking(run: RunDir) -> str:
    """What the picture of a run lacks, by the stage that writes it; "" where nothing is missing. Raises RunDirError."""
    config = run.config()
    without = () if config.barycenter.weights != "none" else ("barycenter",)
    lines, missing, never = [], False, False
    for stage, what, files in SOURCES:
        if stage in without:
            continue
        there = all((run.path / name).is_file() for name in files)
        state = "there" if there else "missing" if stage in config.stages else "no part of this run"
        missing, never = missing or not there, never or state.startswith("no part")
        lines.append(f"  {stage:11} {what:33} {state}")
    if not missing:
        return ""
    told = "A stage writes its own when it ends. In a run that has ended, this measures them:\n"
    end = "so there is no distribution to show" if never else f"{told}  wmdd-tui resume {run.id}"
    return "\n".join(["The distribution is drawn from", *lines, "", end])


def kept(wanted: Wanted) -> Embedding | None:
    """The answer of an earlier time, if nothing has changed since."""
    try:
        return _decoded(_file(wanted).read_bytes())
    except (OSError, ValueError):
        return None


def measure(wanted: Wanted, say: Callable[[str], None], cancelled: Callable[[], bool]) -> Embedding | None:
    """Ask for the answer and keep it; None once ``cancelled``. ``say`` is told how far the work is.

    Raises RunFailure with what the command said.
    """
    classes = [part for word in wanted.classes for part in ("--class", word)]
    command = [sys.executable, "-m", "wmdd_tui", "embed", str(wanted.run.path), "--json", "--method", wanted.method]
    key_before = wanted.key()
    try:
        answer = _asked([*command, *classes], say, cancelled)
    except OSError as error:
        raise RunFailure(f"no distribution: {error.strerror}", "see `wmdd-tui doctor`") from None
    if answer is None:
        return None
    code, content, lines = answer
    try:
        if code:
            raise ValueError("\n".join(lines[-ERROR_LINES:]) or f"it ended with exit code {code}")
        found = _decoded(content)
    except ValueError as error:
        raise RunFailure(f"no distribution: {str(error).removeprefix('wmdd-tui: ')}") from None
    if key_before == wanted.key():
        # Without room for it the answer is made again another time.
        with suppress(OSError):
            keep(wanted, content)
    return found


def _asked(
    command: Sequence[str], say: Callable[[str], None], cancelled: Callable[[], bool]
) -> tuple[int, bytes, list[str]] | None:
    """Exit code, output and lines on stderr of a command; None once ``cancelled``. Raises OSError."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=answer, stderr=said)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        while process.poll() is None:
            if cancelled():
                process.kill()
                process.wait()
                return None
            lines = _lines(said.fileno())
            say(f"{lines[-1] if lines else 'measuring classes'}, {time.monotonic() - begin:.0f} s")
            time.sleep(POLL_SECONDS)
        answer.seek(0)
        return process.returncode, answer.read(), _lines(said.fileno())


def keep(wanted: Wanted, content: bytes) -> None:
    """Write an answer, and remove the oldest beyond ``MOST_KEPT``. Raises OSError."""
    file = _file(wanted)
    file.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_whole(file, content)
    others = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[MOST_KEPT:]:
        path.unlink(missing_ok=True)


def forget(run: RunDir) -> None:
    """Remove what is kept of a run."""
    shutil.rmtree(_folder(run), ignore_errors=True)


def _decoded(content: bytes) -> Embedding:
    """An answer that can be drawn. Raises ValueError."""
    try:
        found = msgspec.json.decode(content, type=Embedding)
    except RecursionError:
        raise ValueError("the answer is nested too deeply") from None
    for one in found.classes:
        numbers = [value for places in (one.real, one.images, one.barycenter) for place in places for value in place]
        if not numbers or any(abs(value) > LARGEST for value in numbers):
            raise ValueError(f"the places of class {one.label} cannot be drawn")
    if not found.classes:
        raise ValueError("the answer has no classes")
    return Embedding(found.method, [msgspec.structs.replace(one, name=as_name(one.name)) for one in found.classes])


def _lines(descriptor: int) -> list[str]:
    """What a process has written to a file so far, read without moving its place in it."""
    text = os.pread(descriptor, 1 << 16, 0).decode(errors="replace")
    return [printable(line.strip()) for line in text.splitlines() if line.strip()]


def _folder(run: RunDir) -> Path:
    return rundir.home() / "embeddings" / run.id


def _file(wanted: Wanted) -> Path:
    return _folder(wanted.run) / f"{wanted.key()}.json"
