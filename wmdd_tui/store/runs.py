"""One line of facts about each run, for lists."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import events
from engine.errors import EngineError
from engine.rundir import RunDir, list_runs, state_of

TAIL_BYTES = 256 << 10


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
    """Facts from the configuration, the tail of the events and the report; an unreadable run is a row too."""
    now = time.time() if now is None else now
    try:
        config = run.config()
        age = now - run.config_file.stat().st_mtime
    except (EngineError, OSError) as error:
        return RunSummary(run.id, str(run.path), run.id, "unreadable", problem=str(error).splitlines()[0])
    report = read_report(run)
    facts: dict[str, Any] = {}
    tops: list[float] = []
    progress: list[events.Progress] = []
    for event in _tail(run.events_file):
        if isinstance(event, events.Stage):
            facts["stage"], progress = event.stage, []
        elif isinstance(event, events.Progress):
            progress.append(event)
        elif isinstance(event, events.Metrics) and event.stage == "train" and event.top1 is not None:
            tops.append(event.top1)
        elif isinstance(event, events.End):
            facts["message"] = event.message
    if progress:
        facts |= {"stage": progress[-1].stage, "done": progress[-1].done, "total": progress[-1].total}
        facts |= _speed(progress)
    return RunSummary(
        id=run.id,
        path=str(run.path),
        name=config.name or config.preset or run.id,
        state=state_of(run),
        dataset=Path(config.data.path).name if config.data.path else config.data.dataset,
        teacher=config.teacher.arch,
        ipc=config.ipc,
        r_bn=config.recover.r_bn,
        seed=config.seed,
        teacher_top1=report.get("teacher_top1"),
        last_top1=tops[-1] if tops else report.get("student_top1"),
        best_top1=max(tops) if tops else report.get("best_top1"),
        age_s=age,
        **facts,
    )


def _speed(progress: list[events.Progress]) -> dict[str, float]:
    first, last = progress[0], progress[-1]
    if last.t - first.t <= 0 or last.done <= first.done:
        return {}
    rate = (last.done - first.done) / (last.t - first.t)
    return {"its_per_s": rate, "eta_s": (last.total - last.done) / rate}


def _tail(path: Path) -> list[events.AnyEvent]:
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(max(0, length - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return []
    return [event for line in lines if (event := events.decode(line)) is not None]


def read_report(run: RunDir) -> dict[str, Any]:
    """``report.json``, or nothing where it is absent or damaged."""
    try:
        value = json.loads(run.report_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def list_summaries(root: Path | None = None) -> list[RunSummary]:
    """All runs, newest first."""
    return [summarise(run) for run in list_runs(root)]
