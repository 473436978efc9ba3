"""What every stage is given: configuration, device, run directory, and the ways to report and to be interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from engine import events
from engine.config import RunConfig
from engine.rundir import RunDir

PROGRESS_SECONDS = 0.25


@dataclass
class Context:
    """``emit`` records an event. ``interrupted()`` is True once the run must stop: the stage then saves its
    checkpoint and raises ``errors.Stopped``; it blocks while the run is paused. ``checkpoint_due()`` is True
    once for each request to checkpoint now."""

    config: RunConfig
    device: torch.device
    run: RunDir
    emit: Callable[[events.Event], None]
    interrupted: Callable[[], bool]
    checkpoint_due: Callable[[], bool]
    _last_progress: dict[str, float] = field(default_factory=dict)

    def progress(self, stage: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Report progress, at most four times a second a stage; the last unit is always reported."""
        now = time.monotonic()
        if done < total and now - self._last_progress.get(stage, 0.0) < PROGRESS_SECONDS:
            return
        self._last_progress[stage] = now
        self.emit(events.Progress(stage=stage, done=done, total=total, unit=unit, note=note))

    def log(self, message: str, level: str = "info") -> None:
        self.emit(events.Log(message=message, level=level))


@contextmanager
def staged(ctx: Context, seconds: dict[str, float], name: str) -> Iterator[Callable[[], None]]:
    """Announce a stage and its seconds, and add them up; the yielded function marks it as taken from the cache."""
    cached = False

    def mark() -> None:
        nonlocal cached
        cached = True

    ctx.emit(events.Stage(stage=name, what="begin"))
    started = time.monotonic()
    yield mark
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started
    ctx.emit(events.Stage(stage=name, what="end", seconds=round(seconds[name], 3), cached=cached))
