"""Teachers that earlier runs have left, which another run can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.errors import EngineError
from engine.rundir import RunDir, list_runs
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
    """The teachers of all runs, the newest first and each once; a run that cannot be read has none to offer.

    Of several runs with the same teacher one that tells its accuracy is named.
    """
    runs = [(run, read_report(run)) for run in list_runs(root)]
    found, known = dict[str, Teacher](), set[str]()
    for run, report in sorted(runs, key=lambda one: "teacher_sha256" not in one[1]):
        try:
            file, config = (run.checkpoints / "teacher.safetensors").stat(), run.config()
        except (OSError, EngineError):
            continue
        # Without a report it is known by its file, which runs share by the cache.
        names = {str(report.get("teacher_sha256") or ""), f"file {file.st_dev} {file.st_ino}"} - {""}
        if known.isdisjoint(names):
            found[run.id] = _teacher_of(run, config, report)
        known |= names
    return [found[run.id] for run, _ in runs if run.id in found]


def _teacher_of(run: RunDir, config: RunConfig, report: Mapping[str, Any]) -> Teacher:
    told = report.get("teacher_top1")
    top1 = float(told) if isinstance(told, int | float) and 0 <= told <= 100 else None
    judged = f", top-1 {top1:.2f} %" if top1 is not None else ""
    name = " ".join((config.name or config.preset or run.id).split())
    shown = f"{config.teacher.arch} on {dataset_of(config)} {config.data.resolution} px{judged}"
    return Teacher(run.id, str(run.path), f"{shown}: run {name} ({run.id})", config, top1)
