"""From a run's view to what single widgets show: curves, rows of layers, progress of the stage. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wmdd_tui.store.series import Series
from wmdd_tui.store.view import RunView, number
from wmdd_tui.theme import duration
from wmdd_tui.widgets.chart import Curves

TERM_NAMES = {"total": "total", "ce": "CE", "feature": "feature", "bn": "BN"}
TREND_SHARE = 0.02


@dataclass(frozen=True)
class StageFacts:
    """The stage at work, what stands behind each finished one, and how fast it goes; seconds and units a second."""

    current: str
    done: dict[str, str]
    percent: float | None
    rate: float | None
    eta: float | None
    unit: str


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
    return StageFacts(current, done, percent, rate, eta, "it" if progress.unit == "iterations" else progress.unit)


def elapsed(view: RunView, alive: bool, now: float) -> float | None:
    """Seconds since the first event; None before it."""
    if not view.first_time:
        return None
    return (now if alive else view.last_time) - view.first_time


def loss_curves(view: RunView) -> Curves:
    """All terms over the iterations of all chunks."""
    total = max(view.hello.chunks, 1) * view.hello.iterations if view.hello else 1
    series = tuple((TERM_NAMES.get(term, term), series) for term, series in view.losses.items())
    return Curves(series, max(1, total, *(one.end for _, one in series)))


def overlay(series: Mapping[str, Series]) -> Curves:
    """One term of several runs."""
    return Curves(tuple(series.items()), max([1, *(one.end for one in series.values())]))


def curve_of(view: RunView) -> Curves:
    """The student's top-1 over the epochs, between evaluations by straight lines; the teacher's as a level line."""
    points = {one.epoch: one.top1 for one in view.metrics if one.stage == "train" and one.top1 is not None}
    teacher = [one.top1 for one in view.metrics if one.stage == "squeeze" and one.top1 is not None]
    epochs = max((one.epochs for one in view.metrics if one.stage == "train"), default=0)
    if not points:
        squeeze = {one.epoch: one.top1 for one in view.metrics if one.stage == "squeeze" and one.top1 is not None}
        last = max((one.epochs for one in view.metrics if one.stage == "squeeze"), default=1)
        return Curves((("teacher top-1 %", joined(squeeze)),) if squeeze else (), last + 1, "epochs")
    curves = [("student top-1 %", joined(points))]
    if teacher:
        level = Series()
        level.extend(0, [teacher[-1]] * (epochs + 1))
        curves.append(("teacher", level))
    return Curves(tuple(curves), epochs + 1, "epochs")


def joined(points: Mapping[int, float]) -> Series:
    """Points joined by straight lines."""
    keys = sorted(points)
    series = Series()
    series.extend(keys[0], np.interp(range(keys[0], keys[-1] + 1), keys, [points[key] for key in keys]).tolist())
    return series


@dataclass(frozen=True)
class LayerRow:
    """One layer: its name, and what the table shows of it."""

    name: str
    cells: tuple[str, str, str, str]


def layer_rows(view: RunView, ascii_only: bool) -> list[LayerRow]:
    """Latest value, share of the sum and trend of every layer."""
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
        trend = level if abs(value - before) <= TREND_SHARE * abs(before) else up if value > before else down
        share = f"{100 * value / total:.1f} %" if total and math.isfinite(value) else ""
        rows.append(LayerRow(f"{index} {name}", (" ".join(name.split()), f"{value:.4g}", share, trend)))
    return rows


def layer_history(view: RunView, contains: str) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Matrix (layers, moments) of the layers whose name contains a text, and those names."""
    names = view.hello.layers if view.hello else []
    chosen = [index for index, name in enumerate(names) if contains in name.lower()]
    moments = [event for event in view.layers if len(event.values) == len(names)]
    if not chosen or not moments:
        return np.zeros((0, 0)), []
    matrix = np.array([[number(event.values[index]) for event in moments] for index in chosen])
    return matrix, [names[index] for index in chosen]
