"""From a run's view to what single widgets show: curves, rows of layers, progress of the stage. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from engine import events
from wmdd_tui.store.series import Series
from wmdd_tui.store.view import RunView, number
from wmdd_tui.theme import duration
from wmdd_tui.widgets.chart import Curves

TERM_NAMES = {"total": "total", "ce": "CE", "feature": "feature", "bn": "BN"}
TREND_SHARE = 0.02
#: Slot of the second student's curve; those before it are of the first one and the teacher.
FIRST_OTHER = 2
#: More curves could not be told apart; the table has all students.
MOST_STUDENTS = 12
#: The share of a layer is its value over a sum common to all, so one order serves both columns.
LAYER_ORDERS = ("network order", "largest value", "steepest trend", "name")
HISTORY_VALUES = 2048
#: More chunks than this have no room in any terminal.
MAX_BOUNDARIES = 2000
#: A growth beyond is no trend but another scale, and its digits would fill the table.
MOST_GROWTH = 1e4


@dataclass(frozen=True)
class StageFacts:
    """The stage at work, what stands behind each finished one, and how fast it goes; seconds and units a second.

    ``note`` is what it does before its first unit or between two, where that takes long.
    """

    current: str
    done: dict[str, str]
    percent: float | None
    rate: float | None
    eta: float | None
    unit: str
    note: str = ""


def stage_facts(view: RunView) -> StageFacts:
    """Progress of a view."""
    done = {
        name: "cached" if times.cached else duration(times.seconds)
        for name, times in view.stages.items()
        if times.seconds is not None
    }
    current = next((name for name in reversed(view.stages) if name not in done), "")
    progress, rate = view.progress.get(current), view.speed.get(current)
    if progress is None:
        return StageFacts(current, done, None, None, None, "")
    percent = 100 * progress.done / progress.total if progress.total else None
    eta = (progress.total - progress.done) / rate if rate else None
    unit = "it" if progress.unit == "iterations" else progress.unit
    return StageFacts(current, done, percent, rate, eta, unit, progress.note)


def elapsed(view: RunView, alive: bool, now: float) -> float | None:
    """Seconds in which an engine ran; None before the first event."""
    if not view.first_time:
        return None
    return max(0.0, (now if alive else view.last_time) - view.first_time - view.idle)


def loss_curves(view: RunView, term: str = "") -> Curves:
    """One term, or all, over the iterations of all chunks, whose beginnings are the boundaries."""
    length = view.hello.iterations if view.hello else 0
    total = max(view.hello.chunks, 1) * length if view.hello else 1
    chosen = {name: series for name, series in view.losses.items() if term in ("", name)}
    places = [list(view.losses).index(name) for name in chosen]
    series = tuple((TERM_NAMES.get(name, name), one) for name, one in chosen.items())
    total = max(1, total, *(one.end for _, one in series))
    return Curves(series, total, boundaries=_boundaries(length, total), slots=tuple(places))


def _boundaries(length: int, total: int, step: int = 1) -> tuple[float, ...]:
    """Where chunks begin, in units of ``step`` iterations; of a run of very many chunks, the first ones."""
    return tuple(place / step for place in islice(range(length, total, length), MAX_BOUNDARIES)) if length else ()


def overlay(series: Sequence[tuple[str, Series]], slots: tuple[int, ...], unit: str = "iterations") -> Curves:
    """One figure of several runs, each with the sign and colour of its slot."""
    return Curves(tuple(series), max([1, *(one.end for _, one in series)]), unit, slots=slots)


def student_top1(view: RunView) -> Series | None:
    """The student's top-1 by epoch, joined by straight lines; None before the first evaluation."""
    points = {one.epoch: one.top1 for one in view.metrics if one.stage == "train" and one.top1 is not None}
    return joined(points) if points else None


def _teacher_top1(view: RunView) -> float | None:
    """Accuracy of the teacher, which saw all data; None while unknown."""
    found = [one.top1 for one in view.metrics if one.stage in ("squeeze", "teacher") and one.top1 is not None]
    return found[-1] if found else None


def accuracy_curves(view: RunView) -> Curves:
    """The student's top-1 and top-5 by epoch, joined by straight lines; the teacher's top-1 as a level line.

    Of several students the top-1 of each, under its name. Before the student trains: the teacher's own top-1 by epoch.
    """
    train = [one for one in view.metrics if one.stage == "train"]
    top1 = {one.epoch: one.top1 for one in train if one.top1 is not None}
    if not top1:
        squeeze = [one for one in view.metrics if one.stage == "squeeze"]
        found = {one.epoch: one.top1 for one in squeeze if one.top1 is not None}
        last = max((one.epochs for one in squeeze), default=1)
        return Curves((("teacher top-1 %", joined(found)),) if found else (), last + 1, "epochs")
    epochs = max(one.epochs for one in view.metrics if one.stage in ("train", "cross"))
    others = _other_students(view)
    curves = [(f"{train[-1].student or 'student'} top-1 %", joined(top1))]
    slots = [0]
    for slot, (name, points) in enumerate(others.items(), start=FIRST_OTHER):
        curves.append((name, joined(points)))
        slots.append(slot)
    top5 = {} if others else {one.epoch: one.top5 for one in train if one.top5 is not None}
    if top5:
        curves.append(("top-5 %", joined(top5)))
        slots.append(2)
    teacher = _teacher_top1(view)
    if teacher is not None:
        level = Series()
        level.extend(0, [teacher] * (epochs + 1))
        curves.append(("teacher", level))  # the last is drawn over the others, and top-5 often lies where it does
        slots.append(1)
    return Curves(tuple(curves), epochs + 1, "epochs", slots=tuple(slots))


def _other_students(view: RunView) -> dict[str, dict[int, float]]:
    """Top-1 by epoch of the students beside the first, by name."""
    found: dict[str, dict[int, float]] = {}
    for one in view.metrics:
        known = one.student in found or len(found) < MOST_STUDENTS
        if one.stage == "cross" and one.top1 is not None and known:
            found.setdefault(one.student, {})[one.epoch] = one.top1
    return found


def epoch_loss_curves(view: RunView) -> Curves:
    """The losses of student and teacher by epoch."""
    curves, slots, last = [], [], 1
    for slot, (stage, name) in enumerate((("train", "student loss"), ("squeeze", "teacher loss"))):
        found = [one for one in view.metrics if one.stage == stage]
        points = {one.epoch: number(one.loss) for one in found if math.isfinite(number(one.loss))}
        if points:
            curves.append((name, joined(points)))
            slots.append(slot)
            last = max(last, *(one.epochs for one in found))
    return Curves(tuple(curves), last + 1, "epochs", slots=tuple(slots))


def metric_rows(view: RunView) -> list[tuple[str, ...]]:
    """Stage (and which student, where there are several), epoch, loss, top-1 and top-5 of every evaluation."""
    return [
        (
            _whose(one, view),
            f"{one.epoch}/{one.epochs}" if one.epochs else "",
            "" if one.stage == "teacher" else f"{number(one.loss):.4g}",
            "" if one.top1 is None else f"{one.top1:.2f}",
            "" if one.top5 is None else f"{one.top5:.2f}",
        )
        for one in view.metrics
    ]


def _whose(one: events.Metrics, view: RunView) -> str:
    """The stage, which student or further network where it is named, and of several chunks which."""
    chunk = f"chunk {one.chunk + 1}" if one.chunk is not None and view.hello and view.hello.chunks > 1 else ""
    return f"{'train' if one.stage == 'cross' else one.stage} {one.student} {chunk}".strip()


def joined(points: Mapping[int, float]) -> Series:
    """Points joined by straight lines."""
    keys = sorted(points)
    series = Series()
    series.extend(keys[0], np.interp(range(keys[0], keys[-1] + 1), keys, [points[key] for key in keys]).tolist())
    return series


@dataclass(frozen=True)
class LayerRow:
    """One layer: its place, value and growth, and what the table shows of it."""

    index: int
    value: float
    growth: float
    cells: tuple[str, str, str, str]


def layer_rows(view: RunView, ascii_only: bool, order: str = "network order") -> list[LayerRow]:
    """Latest value, share of the sum, and trend over the last ten moments of every layer."""
    if not view.layers:
        return []
    names = view.hello.layers if view.hello else []
    values = [number(value) for value in view.layers[-1].values]
    earlier = [number(value) for value in view.layers[max(0, len(view.layers) - 11)].values]
    total = sum(value for value in values if math.isfinite(value))
    up, down, level = ("up", "down", "level") if ascii_only else ("↑ up", "↓ down", "→ level")
    rows = []
    for index, value in enumerate(values):
        name = names[index] if index < len(names) else f"layer {index}"
        before = earlier[index] if index < len(earlier) else value
        growth = (value - before) / abs(before) if before else 0.0
        trend = level if abs(growth) <= TREND_SHARE else up if growth > 0 else down
        share = f"{100 * value / total:.1f} %" if total and math.isfinite(value) else ""
        change = f"{trend} {100 * growth:+.0f} %" if abs(growth) < MOST_GROWTH else ""
        rows.append(LayerRow(index, value, growth, (" ".join(name.split()), f"{value:.4g}", share, change)))
    keys: dict[str, Callable[[LayerRow], Any]] = {
        "largest value": lambda row: (not math.isfinite(row.value), -row.value if math.isfinite(row.value) else 0.0),
        "steepest trend": lambda row: -abs(row.growth) if math.isfinite(row.growth) else 0.0,
        "name": lambda row: row.cells[0],
    }
    return sorted(rows, key=keys[order]) if order in keys else rows


def layer_curve(view: RunView, index: int) -> Curves:
    """The BN term of one layer over the iterations of all chunks, joined between the moments that were kept."""
    names = view.hello.layers if view.hello else []
    length = view.hello.iterations if view.hello else 0
    points: dict[int, float] = {}
    total = max(1, (view.hello.chunks if view.hello else 1) * length)
    step = max(1, math.ceil(total / HISTORY_VALUES))
    for event in view.layers:
        if index < len(event.values) and math.isfinite(number(event.values[index])):
            points[(event.chunk * length + event.iteration) // step] = number(event.values[index])
    name = names[index] if index < len(names) else f"layer {index}"
    series = ((" ".join(name.split()), joined(points)),) if points else ()
    return Curves(series, math.ceil(total / step), boundaries=_boundaries(length, total, step), step=step)


def layer_history(view: RunView, contains: str) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Matrix (layers, moments) of the layers whose name contains a text, and those names."""
    names = view.hello.layers if view.hello else []
    chosen = [index for index, name in enumerate(names) if contains in name.lower()]
    moments = [event for event in view.layers if len(event.values) == len(names)]
    if not chosen or not moments:
        return np.zeros((0, 0)), []
    matrix = np.array([[number(event.values[index]) for event in moments] for index in chosen])
    return matrix, [names[index] for index in chosen]
