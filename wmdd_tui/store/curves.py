"""Everything of a run that can be drawn against time: losses, BatchNorm terms of the layers, accuracies.

Bounded memory whatever the length of the run: per-iteration values go into ``Series``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from engine import events
from engine.errors import RunDirError
from engine.rundir import RunDir
from wmdd_tui.names import as_name
from wmdd_tui.store.history import Report, all_events, silent
from wmdd_tui.store.runs import read_report
from wmdd_tui.store.series import Series
from wmdd_tui.store.view import TERMS, number


@dataclass
class RunCurves:
    """Curves of one run. Iterations of all chunks stand one after the other; epochs count from 1.

    ``layer_samples`` is how often the layers were recorded; ``teacher`` and ``student`` map epochs to top-1 in
    percent; ``teacher_top1`` is known of a loaded or cached teacher too.
    """

    label: str
    iterations: int = 0
    chunks: int = 0
    losses: dict[str, Series] = field(default_factory=dict)
    layers: dict[str, Series] = field(default_factory=dict)
    layer_samples: int = 0
    teacher: dict[int, float] = field(default_factory=dict)
    student: dict[int, float] = field(default_factory=dict)
    teacher_top1: float | None = None

    @property
    def length(self) -> int:
        """Iterations of all chunks, at least as many as were recorded."""
        return max(self.iterations * self.chunks, 1, *(series.end for series in self.losses.values()), 0)


def read_curves(run: RunDir, label: str, report: Report = silent) -> RunCurves:
    """The curves of a run. Raises RunDirError for a run that has recorded nothing to draw yet."""
    curves = RunCurves(label)
    names: list[str] = []
    for event in all_events(run, report):
        match event:
            case events.Hello():
                names = event.layers
                curves.iterations, curves.chunks = event.iterations, event.chunks
            case events.Iters():
                offset = event.chunk * curves.iterations + event.first
                for term in TERMS:
                    if values := getattr(event, term):
                        curves.losses.setdefault(term, Series()).extend(offset, [number(value) for value in values])
            case events.Layers():
                _take_layers(curves, names, event)
            case events.Metrics(stage="train", top1=float(top1)):
                curves.student[event.epoch] = top1
            case events.Metrics(stage="squeeze" | "teacher", top1=float(top1)):
                curves.teacher_top1 = top1
                if event.stage == "squeeze":
                    curves.teacher[event.epoch] = top1
    if curves.teacher_top1 is None:
        written = read_report(run).get("teacher_top1")
        curves.teacher_top1 = written if isinstance(written, float) else None
    if not (curves.losses or curves.layers or curves.teacher or curves.student):
        raise RunDirError(
            f"run {run.id} has recorded no losses and no accuracies yet",
            f"see how far it is: wmdd-tui show {run.id}",
        )
    return curves


def _take_layers(curves: RunCurves, names: list[str], event: events.Layers) -> None:
    offset = event.chunk * curves.iterations + event.iteration
    for index, value in enumerate(event.values):
        name = names[index] if index < len(names) else f"layer {index}"
        curves.layers.setdefault(name, Series()).extend(offset, [number(value)])
    curves.layer_samples += 1


#: Header of ``table``.
COLUMNS = ("run", "panel", "stage", "chunk", "step", "name", "value")
PANELS = ("losses", "bn", "metrics")


def table(
    run: RunDir, label: str, panels: tuple[str, ...] = PANELS, report: Report = silent
) -> Iterator[tuple[str | int | float, ...]]:
    """Every recorded value as a row of ``COLUMNS``: an iteration (from 0) or epoch (from 1) is its step.

    What a resumed run did over again stands there once, as it was recorded first.
    """
    reached: dict[tuple[str, int], int] = {}

    def is_new(what: str, chunk: int, step: int) -> bool:
        if step <= reached.get((what, chunk), -1):
            return False
        reached[what, chunk] = step
        return True

    names: list[str] = []
    for event in all_events(run, report):
        match event:
            case events.Hello():
                names = event.layers
            case events.Iters() if "losses" in panels:
                for index in range(len(event.total)):
                    step = event.first + index
                    if is_new("losses", event.chunk, step):
                        for term in TERMS:
                            values = getattr(event, term)
                            if index < len(values):
                                yield label, "losses", "recover", event.chunk, step, term, values[index]
            case events.Layers() if "bn" in panels and is_new("bn", event.chunk, event.iteration):
                for index, value in enumerate(event.values):
                    name = names[index] if index < len(names) else f"layer {index}"
                    yield label, "bn", "recover", event.chunk, event.iteration, name, value
            case events.Metrics() if "metrics" in panels and is_new(
                who := metrics_of(event), at := chunk_of(event), event.epoch
            ):
                for name in ("loss", "top1", "top5", "lr"):
                    value = getattr(event, name)
                    if value is not None:
                        yield label, "metrics", who, "" if at < 0 else at, event.epoch, name, value


def chunk_of(event: events.Metrics) -> int:
    """The chunk that a verifier's figures are of; -1 for figures of a network."""
    return -1 if event.chunk is None else event.chunk


def metrics_of(event: events.Metrics) -> str:
    """What epoch figures are of: their stage and, where there are several, which student or further teacher."""
    return f"{event.stage} {as_name(event.student)}" if event.student else event.stage
