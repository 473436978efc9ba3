"""The run directory: its files, its lock, who runs in it, and the state derived from them.

The directory is the only meeting point of engine and watchers. Liveness is derived from the lock and the
heartbeat, never stored. Every file appears whole: it is written under a temporary name, synced and renamed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs
import psutil

from engine import __version__, config, events
from engine.errors import RunDirError

State = Literal[
    "queued", "starting", "running", "paused", "stalled", "stopped", "finished", "failed", "crashed", "remote"
]
ALIVE: frozenset[str] = frozenset({"queued", "starting", "running", "paused", "stalled", "remote"})
Request = Literal["stop", "pause", "unpause", "checkpoint-now"]
STALL_SECONDS = 30.0
LOCK_PATIENCE_SECONDS = 2.0
START_GRACE_SECONDS = 60.0


def home() -> Path:
    """``$WMDD_HOME``, or the platform's state directory."""
    named = os.environ.get("WMDD_HOME", "")
    return Path(named).expanduser() if named else Path(platformdirs.user_state_dir("wmdd-tui"))


def runs_root() -> Path:
    return home() / "runs"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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


@dataclass(frozen=True)
class RunDir:
    """Paths of one run. Creating the object touches nothing."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config_file(self) -> Path:
        return self.path / "config.toml"

    @property
    def process_file(self) -> Path:
        return self.path / "proc.json"

    @property
    def lock_file(self) -> Path:
        return self.path / "engine.lock"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def console_file(self) -> Path:
        return self.path / "console.log"

    @property
    def report_file(self) -> Path:
        return self.path / "report" / "report.json"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def labels(self) -> Path:
        return self.path / "labels"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def previews(self) -> Path:
        return self.path / "previews"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def config(self) -> config.RunConfig:
        return config.load(self.config_file)

    def process(self) -> dict[str, Any] | None:
        """What ``proc.json`` says, or None where it is absent or unreadable."""
        try:
            value = json.loads(self.process_file.read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def request(self, what: Request) -> None:
        """Ask the engine for something. Raises RunDirError."""
        try:
            self.control.mkdir(exist_ok=True)
            write_whole(self.control / what, b"")
        except OSError as error:
            raise RunDirError(f"cannot write a request into {self.control}: {error.strerror}") from None

    def take_request(self, what: Request) -> bool:
        """True once for each request; used by the engine."""
        try:
            (self.control / what).unlink()
        except OSError:
            return False
        return True


def new_id(name: str = "") -> str:
    """Sortable time stamp, random suffix and a file-safe form of the name."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:40]
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return "-".join(part for part in (stamp, secrets.token_hex(2), safe) if part)


def create(settings: config.RunConfig, root: Path | None = None) -> RunDir:
    """Make a run directory, private to its user, with ``config.toml`` written first. Raises RunDirError."""
    root = root or runs_root()
    run = RunDir(root / new_id(settings.name))
    try:
        root.mkdir(parents=True, exist_ok=True)
        run.path.mkdir(mode=0o700)
        write_whole(run.config_file, config.to_toml(settings).encode())
        for folder in (
            run.control,
            run.checkpoints,
            run.images,
            run.labels,
            run.student,
            run.previews,
            run.report,
        ):
            folder.mkdir()
    except OSError as error:
        raise RunDirError(
            f"cannot create a run directory in {root}: {error.strerror}",
            "set WMDD_HOME to a folder you can write to",
        ) from None
    return run


def list_runs(root: Path | None = None) -> list[RunDir]:
    """All run directories, newest first. Directories without a configuration are not runs."""
    root = root or runs_root()
    try:
        entries = sorted((entry for entry in root.iterdir() if entry.is_dir()), reverse=True)
    except OSError:
        return []
    return [RunDir(entry) for entry in entries if not entry.name.startswith(".")]


def find(reference: str, root: Path | None = None) -> RunDir:
    """A run by path, id, unique prefix or suffix name; empty means the newest. Raises RunDirError."""
    as_path = Path(reference).expanduser()
    if reference and (as_path / "config.toml").is_file():
        return RunDir(as_path.resolve())
    runs = list_runs(root)
    if not runs:
        raise RunDirError(f"no runs under {root or runs_root()}", "start one with `wmdd-tui run --preset digits`")
    if not reference:
        return runs[0]
    for match in (
        [run for run in runs if run.id == reference],
        [run for run in runs if _name_of(run) == reference][:1],
        [run for run in runs if run.id.startswith(reference)],
    ):
        if len(match) == 1:
            return match[0]
        if match:
            found = ", ".join(run.id for run in match[:5])
            raise RunDirError(f"'{reference}' names {len(match)} runs: {found}", "give more of the id")
    raise RunDirError(f"no run '{reference}' under {root or runs_root()}", "`wmdd-tui runs` lists them")


def _name_of(run: RunDir) -> str:
    return run.id.split("-", 3)[3] if run.id.count("-") >= 3 else ""


# --- lock -------------------------------------------------------------------------------------------------


@contextmanager
def hold_lock(run: RunDir) -> Iterator[bool]:
    """Hold the engine's exclusive lock. Yields False where the file system has no ``flock``.

    Readers probe with a shared lock for an instant, so a refusal is retried for two seconds. Raises RunDirError.
    """
    try:
        descriptor = os.open(run.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunDirError(f"run directory {run.path} cannot be written: {error.strerror}") from None
    try:
        yield _lock(descriptor, run)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run: RunDir) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RunDirError(
                    f"another engine is at work in {run.path}",
                    "stop it first: `wmdd-tui stop " + run.id + "`",
                ) from None
            time.sleep(0.05)
        except OSError:
            return False


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


# --- process identity -------------------------------------------------------------------------------------


def boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))


def write_process(run: RunDir, versions: dict[str, str]) -> None:
    """Record who runs: pid, group, creation time, boot, host, versions."""
    me = psutil.Process()
    facts = {
        "pid": me.pid,
        "pgid": os.getpgid(0),
        "create_time": me.create_time(),
        "boot_id": boot_id(),
        "host": socket.gethostname(),
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
        "versions": {"wmdd-tui": __version__, **versions},
    }
    write_whole(run.process_file, json.dumps(facts, indent=1).encode())


def identified(run: RunDir) -> psutil.Process | None:
    """The engine's process if it is this very process, on this host, in this boot; else None."""
    facts = run.process()
    if not facts or facts.get("host") != socket.gethostname() or facts.get("boot_id") != boot_id():
        return None
    try:
        process = psutil.Process(int(facts["pid"]))
        same = abs(process.create_time() - float(facts["create_time"])) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, KeyError, TypeError, ValueError):
        return None


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


# --- state ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signs:
    """What a run's state is derived from."""

    lock: bool | None
    same_host: bool
    started: bool
    end: str
    beat_age: float
    paused: bool
    config_age: float
    queued: bool = False


def derive_state(signs: Signs) -> State:
    """The state of a run. ``end`` is the status of the last process's ``end`` event, "" while it has none."""
    if not signs.started:
        return "starting" if signs.config_age < START_GRACE_SECONDS or signs.lock else "crashed"
    if signs.end == "finished":
        return "finished"
    if signs.end in ("stopped", "failed"):
        return "stopped" if signs.end == "stopped" else "failed"
    if signs.lock is False and signs.same_host:
        return "crashed"
    if signs.beat_age > STALL_SECONDS:
        return "stalled" if signs.lock else "crashed"
    if not signs.same_host:
        return "remote"
    if signs.paused:
        return "paused"
    return "queued" if signs.queued else "running"


def read_signs(run: RunDir, now: float | None = None) -> Signs:
    """Gather the signs of a run from its files; reads only the tail of the event file."""
    now = time.time() if now is None else now
    facts = run.process()
    end, last, paused, queued, started = _tail_signs(run.events_file)
    try:
        config_age = now - run.config_file.stat().st_mtime
    except OSError:
        config_age = float("inf")
    return Signs(
        lock=lock_held(run),
        same_host=facts is None or facts.get("host") == socket.gethostname(),
        started=started,
        end=end,
        beat_age=max(0.0, now - last) if last else float("inf"),
        paused=paused,
        config_age=config_age,
        queued=queued,
    )


def _tail_signs(path: Path, size: int = 65536) -> tuple[str, float, bool, bool, bool]:
    """Status of the last ``end``, time of the last event; whether paused, queued, and anything was written."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - size))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return "", 0.0, False, False, False
    end, last, paused, queued = "", 0.0, False, False
    for line in lines:
        event = events.decode(line)
        if event is None:
            continue
        last = event.t
        end = event.status if isinstance(event, events.End) else ""
        if isinstance(event, events.Beat):
            paused, queued = event.paused, event.queued
    return end, last, paused, queued, bool(lines)


def state_of(run: RunDir) -> State:
    return derive_state(read_signs(run))
