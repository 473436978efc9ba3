"""Teachers that earlier runs have left, which another run can take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import EngineError
from engine.rundir import list_runs
from wmdd_tui.store.runs import dataset_of, read_report

#: Options in which a network is built; a run that takes a teacher must have them as the run that trained it.
BUILT_BY = ("arch", "width", "stem")


@dataclass(frozen=True)
class Teacher:
    """A run's teacher: where it lies, what a person reads of it, and the configuration it was trained under.

    ``top1`` is its accuracy in percent, None where the run has told none.
    """

    run: str
    path: str
    text: str
    config: RunConfig
    top1: float | None

    @property
    def options(self) -> dict[str, Any]:
        """What another run's teacher options must be to take it."""
        values = self.config.teacher.model_dump(mode="json")
        return {f"teacher.{name}": values[name] for name in BUILT_BY}


def earlier_teachers(root: Path | None = None) -> list[Teacher]:
    """The teachers of all runs, the newest first and each once; a run that cannot be read has none to offer."""
    found, known = list[Teacher](), set[str]()
    for run in list_runs(root):
        if not (run.checkpoints / "teacher.safetensors").is_file():
            continue
        try:
            config = run.config()
        except EngineError:
            continue
        report = read_report(run)
        # Without a report it may be at work, and its teacher is one of its own.
        sha256 = str(report.get("teacher_sha256") or run.id)
        if sha256 in known:
            continue
        known.add(sha256)
        told = report.get("teacher_top1")
        top1 = float(told) if isinstance(told, int | float) and 0 <= told <= 100 else None
        judged = f", top-1 {top1:.2f} %" if top1 is not None else ""
        name = " ".join((config.name or config.preset or run.id).split())
        shown = f"{config.teacher.arch} on {dataset_of(config)} {config.data.resolution} px{judged}"
        found.append(Teacher(run.id, str(run.path), f"{shown}: run {name} ({run.id})", config, top1))
    return found
