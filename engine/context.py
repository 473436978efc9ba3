"""What every stage is given: configuration, device, run directory, and the ways to report and to be interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from engine import events
from engine.checkpoints import Loaded, Slots
from engine.config import RunConfig
from engine.devices import computes_in_bf16
from engine.distributed.group import Group
from engine.errors import Stopped
from engine.memory import in_parts
from engine.rundir import RunDir
from engine.space import free_bytes, size_text, written_bytes

PROGRESS_SECONDS = 0.25
#: Checkpoints are spaced so that writing them takes at most one part in this many of the time.
CHECKPOINT_SHARE = 20


class Pace:
    """When the next checkpoint is due: every ``seconds``, less often where writing one takes long; with 0 s always.

    Times are given, not read.
    """

    def __init__(self, seconds: float, now: float) -> None:
        #: How many checkpoints are written one after the other when they are due.
        self.together = 1
        self._seconds = seconds
        self._wait = seconds
        self._since = now

    def due(self, now: float) -> bool:
        return now - self._since >= self._wait

    def begin(self, now: float) -> None:
        """A stage begins: there is nothing to save yet."""
        self.together = 1
        self._since = now

    def saved(self, began: float, now: float) -> None:
        """A checkpoint was written between these two moments."""
        self._wait = max(self._seconds, CHECKPOINT_SHARE * self.together * (now - began)) if self._seconds else 0.0
        self._since = now


@dataclass
class Context:
    """``emit`` records an event. ``interrupted()`` is True once the run must stop: the stage then saves its
    checkpoint and raises ``errors.Stopped``; it blocks while the run is paused. ``asked()`` is True once for each
    request to checkpoint now. ``group`` are the ranks that share the work. ``fitting`` holds, for each stage, the
    largest batch that fitted the device; ``needed`` how many bytes the run may come to write."""

    config: RunConfig
    device: torch.device
    run: RunDir
    emit: Callable[[events.Event], None]
    interrupted: Callable[[], bool]
    asked: Callable[[], bool]
    group: Group = field(default_factory=Group)
    fitting: dict[str, int] = field(default_factory=dict)
    needed: int = 0
    _last_progress: dict[str, float] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _on_request: bool = False
    _left_to_write: int = 0
    _short: bool = False

    def __post_init__(self) -> None:
        self.pace = Pace(self.config.run.checkpoint_seconds, time.monotonic())

    @property
    def bf16(self) -> bool:
        """Whether networks are computed in bf16."""
        return computes_in_bf16(self.config.run.precision, self.device.type)

    @property
    def statistics_bf16(self) -> bool:
        """Whether it is for the statistics of the real images."""
        return computes_in_bf16(self.config.precision_of("statistics"), self.device.type)

    def statistics_determinants(self) -> dict[str, Any]:
        """The options by which statistics are known; fp32, in which all were once, goes without saying."""
        options = self.config.statistics.determinants(exclude={"precision"})
        return {**options, "precision": "bf16"} if self.statistics_bf16 else options

    def progress(self, stage: str, done: int, total: int, unit: str = "", note: str = "") -> None:
        """Report progress, at most four times a second a stage; the last unit is always reported."""
        now = time.monotonic()
        if done < total and now - self._last_progress.get(stage, 0.0) < PROGRESS_SECONDS:
            return
        self._last_progress[stage] = now
        self.emit(events.Progress(stage=stage, done=done, total=total, unit=unit, note=note))

    def log(self, message: str, level: str = "info") -> None:
        self.emit(events.Log(message=message, level=level))

    def warn(self, message: str) -> None:
        self.log(message, "warning")

    def warn_once(self, message: str) -> None:
        """Warn of what may happen again and again."""
        if message not in self._warned:
            self._warned.add(message)
            self.warn(message)

    def cut(self, stage: str, rows: slice, work: Callable[[slice], None]) -> None:
        """Forward passes of images that do not influence each other, in parts where they do not fit the device."""
        in_parts(stage, rows, work, self.fitting, self.warn)

    def stop_if_asked(self, stage: str) -> None:
        """Between units whose results are kept already. Raises Stopped."""
        if self.interrupted():
            raise Stopped(f"stopped in {stage}")

    def checkpoint_due(self) -> bool:
        """True when a checkpoint was asked for, or the last is old enough."""
        self._on_request = self.asked() or self._on_request
        return self._on_request or self.pace.due(time.monotonic())

    def begin_stage(self) -> None:
        """Count what is still to be written, and say so where the disk has less."""
        self.pace.begin(time.monotonic())
        if self.group.leads:  # one rank counts the files for all
            self._left_to_write = max(0, self.needed - written_bytes(self.run))
        self._look_at_disk()

    def _look_at_disk(self) -> None:
        free = free_bytes(self.run)
        short = free < self._left_to_write
        if short and not self._short:
            self.warn(
                f"the disk of the run has {size_text(free)} free, and up to {size_text(self._left_to_write)} may still "
                "be written: free some space"
            )
        self._short = short

    def load(self, slots: Slots, where: Callable[[dict[str, Any]], str]) -> Loaded | None:
        """The newest intact checkpoint of a piece of work, announced; ``where`` words its loop state."""
        saved = slots.load(self.warn)
        if saved is not None:
            self.log(f"goes on from the checkpoint of {where(saved.state)}")
        return saved

    def save(self, slots: Slots, where: str, tensors: dict[str, torch.Tensor], **state: Any) -> None:
        """Write a checkpoint; one that was asked for is announced. Raises OSError, NonFiniteLoss."""
        began = time.monotonic()
        slots.save(tensors, **state)
        self.pace.saved(began, time.monotonic())
        self._look_at_disk()
        if self._on_request:
            self._on_request = False
            self.log(f"checkpoint written as asked: {where}")


@contextmanager
def staged(ctx: Context, seconds: dict[str, float], name: str) -> Iterator[Callable[[], None]]:
    """Announce a stage and its seconds, and add them up; the yielded function marks it as taken from the cache."""
    cached = False

    def mark() -> None:
        nonlocal cached
        cached = True

    ctx.emit(events.Stage(stage=name, what="begin"))
    started = time.monotonic()
    ctx.begin_stage()
    yield mark
    seconds[name] = seconds.get(name, 0.0) + time.monotonic() - started
    ctx.emit(events.Stage(stage=name, what="end", seconds=round(seconds[name], 3), cached=cached))
