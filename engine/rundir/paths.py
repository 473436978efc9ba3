"""Where runs lie: the paths of one, and how one is made and found."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import platformdirs

from engine.errors import EngineError, RunDirError
from engine.rundir.files import write_whole

if TYPE_CHECKING:
    from engine import config

Request = Literal["stop", "pause", "unpause", "checkpoint-now"]


def home() -> Path:
    """``$WMDD_HOME``, or the platform's state directory."""
    named = os.environ.get("WMDD_HOME", "")
    return Path(os.path.expanduser(named)) if named else Path(platformdirs.user_state_dir("wmdd-tui"))


def runs_root() -> Path:
    return home() / "runs"


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
    def claim_file(self) -> Path:
        return self.path / "engine.claim"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    def rank_events_file(self, rank: int) -> Path:
        """Events of one rank of a group; those of the first are the run's."""
        return self.path / f"events.rank-{rank:05d}.jsonl" if rank else self.events_file

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
        from engine import config  # pydantic takes a fifth of a second, which a list of runs need not pay

        return config.load(self.config_file)

    def process(self) -> dict[str, Any] | None:
        """What ``proc.json`` says, or None where it is absent or unreadable."""
        try:
            value = json.loads(self.process_file.read_bytes())
        except (OSError, ValueError, RecursionError):
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
    from engine import config

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
    """A run by path, id, name, unique prefix or unique shown name; empty means the newest. Raises RunDirError."""
    as_path = Path(os.path.expanduser(reference))
    if reference and _holds_configuration(as_path):
        return RunDir(as_path.resolve())
    runs = list_runs(root)
    if not runs:
        raise RunDirError(f"no runs under {root or runs_root()}", "start one with `wmdd-tui run --preset digits`")
    if not reference:
        return runs[0]
    for match in _matches(reference, runs):
        if len(match) == 1:
            return match[0]
        if match:
            found = ", ".join(run.id for run in match[:5])
            raise RunDirError(f"'{reference}' names {len(match)} runs: {found}", "give more of an id")
    raise RunDirError(f"no run '{reference}' under {root or runs_root()}", "`wmdd-tui runs` lists them")


def _matches(reference: str, runs: Sequence[RunDir]) -> Iterator[list[RunDir]]:
    """The runs that a reference may mean, one way of naming them after the other."""
    yield [run for run in runs if run.id == reference]
    yield [run for run in runs if _name_of(run) == reference][:1]
    yield [run for run in runs if run.id.startswith(reference)]
    yield [run for run in runs if _shown_name(run) == reference]  # reads every configuration


def _holds_configuration(path: Path) -> bool:
    try:
        return (path / "config.toml").is_file()
    except OSError:  # no name a file can have
        return False


def _name_of(run: RunDir) -> str:
    return run.id.split("-", 3)[3] if run.id.count("-") >= 3 else ""


def _shown_name(run: RunDir) -> str:
    """What lists of runs call it; "" where its configuration cannot be read."""
    try:
        settings = run.config()
    except EngineError:
        return ""
    return settings.name or settings.preset
