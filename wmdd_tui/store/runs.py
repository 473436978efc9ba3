"""One line of facts about each run, for lists."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import events
from engine.errors import EngineError
from engine.rundir import RunDir, list_runs, state_of
from wmdd_tui.names import as_name, printable
from wmdd_tui.store.reader import latest

if TYPE_CHECKING:
    from engine.config import RunConfig  # and pydantic, which a list of runs need not pay

TAIL_BYTES = 256 << 10
#: States that only a change of the files can end.
LASTING = {"finished", "failed", "stopped"}


@dataclass(frozen=True)
class RunSummary:
    """Facts of a run. Accuracies in percent, ages and ETA in seconds; ``problem`` says why a run is unreadable."""

    id: str
    path: str
    name: str
    state: str
    dataset: str = ""
    teacher: str = ""
    ipc: int = 0
    r_bn: float = 0.0
    seed: int = 0
    stage: str = ""
    done: int = 0
    total: int = 0
    its_per_s: float | None = None
    eta_s: float | None = None
    teacher_top1: float | None = None
    last_top1: float | None = None
    best_top1: float | None = None
    age_s: float = 0.0
    message: str = ""
    problem: str = ""


def summarise(run: RunDir, now: float | None = None) -> RunSummary:
    """Facts from the configuration, the tail of the events and the report; an unreadable run is a row too.

    Texts of unknown origin hold no control characters.
    """
    now = time.time() if now is None else now
    try:
        config = run.config()
        age = now - run.config_file.stat().st_mtime
    except (EngineError, OSError) as error:
        return _unreadable(run, str(error).splitlines()[0])
    last = latest(run.events_file, TAIL_BYTES)
    if last.newer:
        return replace(_unreadable(run, last.newer), age_s=age)
    report = read_report(run)
    facts: dict[str, Any] = {}
    tops: list[float] = []
    progress: list[events.Progress] = []
    for event in last.found:
        if isinstance(event, events.Stage):
            facts["stage"], progress = as_name(event.stage), []
        elif isinstance(event, events.Progress):
            progress = [event] if event.note else [*progress, event]  # a note stands for work that is not counted
        elif isinstance(event, events.Metrics) and event.stage == "train" and event.top1 is not None:
            tops.append(event.top1)
        elif isinstance(event, events.End):
            facts["message"] = printable(event.message)
    if progress:
        facts |= {"stage": as_name(progress[-1].stage), "done": progress[-1].done, "total": progress[-1].total}
        facts |= _speed(progress)
    return RunSummary(
        id=run.id,
        path=str(run.path),
        name=as_name(config.name or config.preset or run.id),
        state=state_of(run),
        dataset=dataset_of(config),
        teacher=config.teacher.arch,
        ipc=config.ipc,
        r_bn=config.recover.r_bn,
        seed=config.seed,
        teacher_top1=_percent(report, "teacher_top1"),
        last_top1=tops[-1] if tops else _percent(report, "student_top1"),
        best_top1=max(tops) if tops else _percent(report, "best_top1"),
        age_s=age,
        **facts,
    )


def _speed(progress: list[events.Progress]) -> dict[str, float]:
    first, last = progress[0], progress[-1]
    if last.t - first.t <= 0 or last.done <= first.done:
        return {}
    rate = (last.done - first.done) / (last.t - first.t)
    return {"its_per_s": rate, "eta_s": (last.total - last.done) / rate}


def _unreadable(run: RunDir, why: str) -> RunSummary:
    return RunSummary(run.id, str(run.path), as_name(run.id), "unreadable", problem=printable(why))


def _percent(report: dict[str, Any], key: str) -> float | None:
    value = report.get(key)
    return float(value) if isinstance(value, int | float) and 0 <= value <= 100 else None


def dataset_of(config: RunConfig) -> str:
    """The name of a run's data: of its folder or file, or what is built in."""
    return as_name(Path(config.data.path).name if config.data.path else config.data.dataset)


def read_report(run: RunDir) -> dict[str, Any]:
    """``report.json``, or nothing where it is absent or damaged."""
    try:
        value = json.loads(run.report_file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def list_summaries(root: Path | None = None) -> list[RunSummary]:
    """All runs, newest first."""
    return [summarise(run) for run in list_runs(root)]


class Summaries:
    """The list of runs for one who looks at it again and again: what has ended and not changed is not read again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[list[object], RunSummary]] = {}

    def listed(self, runs: Iterable[RunDir]) -> list[RunSummary]:
        """A line for each run, in their order."""
        known, self._known = self._known, {}
        found = []
        for run in runs:
            marks = [_mark(file) for file in (run.config_file, run.events_file, run.report_file)]
            before = known.get(run.id)
            if before is not None and before[0] == marks:
                summary = replace(before[1], age_s=_age(run))
            else:
                summary = summarise(run)
            if summary.state in LASTING:
                self._known[run.id] = marks, summary
            found.append(summary)
        return found


def _mark(file: Path) -> object:
    """What changes when a file does; None where there is none."""
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns


def _age(run: RunDir) -> float:
    try:
        return time.time() - run.config_file.stat().st_mtime
    except OSError:
        return 0.0
