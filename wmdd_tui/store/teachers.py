"""Teachers that earlier runs have left, which another run can take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import EngineError
from engine.rundir import list_runs
from wmdd_tui.store.runs import read_report

#: Options in which a network is built; a run that takes a teacher must have them as the run that trained it.
BUILT_BY = ("arch", "width", "stem")


@dataclass(frozen=True)
class Teacher:
    """A run's teacher: where it lies, what a person reads of it, and the configuration it was trained under."""

    path: str
    text: str
    config: RunConfig

    @property
    def options(self) -> dict[str, Any]:
        """What another run's teacher options must be to take it."""
        values = self.config.teacher.model_dump(mode="json")
        return {f"teacher.{name}": values[name] for name in BUILT_BY}


def earlier_teachers(root: Path | None = None) -> list[Teacher]:
    """The teachers of all runs, the newest first; a run that cannot be read has none to offer."""
    found = []
    for run in list_runs(root):
        if not (run.checkpoints / "teacher.safetensors").is_file():
            continue
        try:
            config = run.config()
        except EngineError:
            continue
        top1 = read_report(run).get("teacher_top1")
        judged = f", top-1 {top1:.2f} %" if isinstance(top1, int | float) else ""
        named = Path(config.data.path).name or config.data.dataset
        name = " ".join((config.name or config.preset or run.id).split())
        shown = f"{config.teacher.arch} on {named} {config.data.resolution} px{judged}"
        found.append(Teacher(str(run.path), f"{shown}: run {name} ({run.id})", config))
    return found
