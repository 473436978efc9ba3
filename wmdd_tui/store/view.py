"""Everything the monitor knows of a run, accumulated from its events. Robust to any content."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePath
from typing import Any

import numpy as np

from engine import events
from wmdd_tui.names import as_name, printable
from wmdd_tui.store.moments import Moments
from wmdd_tui.store.ranks import RankBook
from wmdd_tui.store.series import Array, Series

LOG_LINES = 2000
LOG_CHARACTERS = 4000
METRIC_ROWS = 4000
NEWEST_ROWS = 500
MOST_STAGES = 64
MOST_EPOCHS = 100_000
MOST_LAYERS = 1 << 14
#: No run is longer; a position beyond is rubbish, and would squeeze all true values into one column.
MOST_ITERATIONS = 1 << 40
CLOCK_JUMP_SECONDS = 5.0
TERMS = ("total", "ce", "feature", "bn")
#: What every rank adds to the same curves, pictures and tables.
FROM_ANY_RANK = frozenset({events.Iters, events.Layers, events.Image, events.Metrics})


@dataclass
class StageTimes:
    """Begin (Unix time), seconds once ended, whether taken from the cache."""

    begun: float = 0.0
    seconds: float | None = None
    cached: bool = False


class RunView:
    """State of a run's events; ``apply`` takes them one by one, ``apply_all`` many at once, in order.

    ``alerts`` only grows, and stays short whatever the file holds. ``strange`` counts events that contradict the run;
    ``share`` is how much of the file has been read, ``idle`` the seconds between sessions, in which no engine ran.
    """

    def __init__(self) -> None:
        self.alerts: list[str] = []
        self.strange = 0
        self._told: dict[str, int] = {}
        self._takers: dict[type[events.Event], Callable[[Any], None]] = {
            events.Hello: self._hello, events.Stage: self._stage, events.Progress: self._progress,
            events.Iters: self._iters, events.Layers: self._layers, events.Memory: self._memory,
            events.Metrics: self._metrics, events.Image: self._image, events.Log: self._log,
            events.Beat: self._beat, events.End: self._end,
        }  # fmt: skip
        self._forget()

    def start_over(self) -> None:
        """Forget all but the alerts: the file was cut short or replaced, and is read from its beginning."""
        self._forget()
        self._alert("replaced", "the event file was cut short or replaced; shown is what it holds now")

    def become(self, other: RunView) -> None:
        """Hold what another view does, which is then no longer to be used."""
        self.__dict__.update({name: value for name, value in vars(other).items() if name != "_takers"})

    def _forget(self) -> None:
        self.hello: events.Hello | None = None
        self.first_time = 0.0
        self.last_time = 0.0
        self.idle = 0.0
        self.stages: dict[str, StageTimes] = {}
        self.progress: dict[str, events.Progress] = {}
        self.speed: dict[str, float] = {}
        self.losses: dict[str, Series] = {}
        self.layers = Moments()
        self.memory: events.Memory | None = None
        self.metrics: list[events.Metrics] = []
        self.image: events.Image | None = None
        self.log: deque[events.Log] = deque(maxlen=LOG_LINES)
        self.end: events.End | None = None
        self.paused = False
        self.share = 1.0
        self.ranks = RankBook()
        self._anchor: dict[str, events.Progress] = {}
        self._pending = _Losses()

    def apply(self, event: events.AnyEvent) -> None:
        """Take in one event."""
        self.apply_all((event,))

    def apply_all(self, found: Iterable[events.AnyEvent]) -> None:
        """Take in events in their order."""
        takers = self._takers
        for event in found:
            if event.rank:
                self._of_another_rank(event)
                continue
            t = event.t
            if type(event) is events.Hello and self.last_time:
                self.idle += max(0.0, t - self.last_time)
            self.first_time = self.first_time or t
            if t >= self.last_time:
                self.last_time = t
            elif t:  # one without a time says nothing of the clock
                self._note_clock(t)
            takers[type(event)](event)
        self._flush()
        for row in self.ranks.rows():
            if row.state == "lost" and (cause := f"lost rank {row.number}") not in self._told:
                self._alert(cause, f"rank {row.number} is silent while others write: its process or its host is gone")

    def _of_another_rank(self, event: events.AnyEvent) -> None:
        """What another rank than the first tells: its own state, and what is the run's whoever tells it."""
        if type(event) is events.Hello:
            event.device, event.host = as_name(event.device), as_name(event.host)
        elif type(event) is events.Stage:
            event.stage = as_name(event.stage)
        elif type(event) is events.End:
            event.status = as_name(event.status)
        self.ranks.take(event)
        if type(event) is events.Progress:
            own = self.ranks.joint(event)
            if own is not event:
                self._advance(own)
        elif type(event) is events.Log:
            if event.level != "info":
                event.message = f"rank {event.rank}: {event.message}"
                self._log(event)
        elif type(event) in FROM_ANY_RANK:
            self._takers[type(event)](event)

    def _note_clock(self, t: float) -> None:
        """A step back; writers on several threads may overtake each other by moments, which is none."""
        if self.last_time - t > CLOCK_JUMP_SECONDS:
            self._alert("clock", f"the clock went back by {self.last_time - t:.0f} s while the run wrote")

    def _layers(self, event: events.Layers) -> None:
        if len(event.values) <= MOST_LAYERS:
            self.layers.append(event)
        else:
            self.strange += 1

    def _image(self, event: events.Image) -> None:
        """Only pictures of the run itself are shown."""
        path = PurePath(event.path)
        if path.is_absolute() or ".." in path.parts or not event.path.isprintable():
            self.strange += 1
        else:
            self.image = event

    def _log(self, event: events.Log) -> None:
        event.message, event.level = printable(event.message[:LOG_CHARACTERS]), as_name(event.level)
        self.log.append(event)

    def _beat(self, event: events.Beat) -> None:
        self.ranks.take(event)
        self.paused = event.paused

    def _end(self, event: events.End) -> None:
        event.error, event.message = as_name(event.error), printable(event.message[:LOG_CHARACTERS])
        event.remedy = printable(event.remedy[:LOG_CHARACTERS])
        self.end = event
        self.ranks.take(event)

    def _hello(self, event: events.Hello) -> None:
        self._flush()
        event.layers = [as_name(name) for name in event.layers[:MOST_LAYERS]]
        event.class_names = [as_name(name) for name in event.class_names]
        event.stages = [as_name(name) for name in event.stages[:MOST_STAGES]]
        event.device = as_name(event.device)
        if event.chunks * event.iterations > MOST_ITERATIONS:
            self.strange += 1
            event.chunks = event.iterations = 0
        event.host = as_name(event.host)
        self.hello, self.end = event, None
        self.ranks.begin(event)
        self.ranks.take(event)

    def _stage(self, event: events.Stage) -> None:
        event.stage = as_name(event.stage)
        if event.stage not in self.stages and len(self.stages) >= MOST_STAGES:
            self.strange += 1
            return
        times = self.stages.setdefault(event.stage, StageTimes())
        self.ranks.take(event)
        if event.what == "begin":
            times.begun, times.seconds = event.t, None
        else:
            times.seconds, times.cached = event.seconds, event.cached

    def _progress(self, event: events.Progress) -> None:
        """Keep the last progress, and a speed over at least ten seconds."""
        event.stage, event.unit, event.note = as_name(event.stage), as_name(event.unit), as_name(event.note)
        self.ranks.take(event)
        self._advance(self.ranks.joint(event))

    def _advance(self, event: events.Progress) -> None:
        if event.stage not in self.progress and len(self.progress) >= MOST_STAGES:
            self.strange += 1
            return
        anchor = self._anchor.setdefault(event.stage, event)
        if event.done < anchor.done or event.t < anchor.t or event.note:  # a note stands for work that is not counted
            self._anchor[event.stage] = event
        elif event.t > anchor.t and event.done > anchor.done:
            self.speed[event.stage] = (event.done - anchor.done) / (event.t - anchor.t)
            if event.t - anchor.t > 10:
                self._anchor[event.stage] = event
        self.progress[event.stage] = event

    def _metrics(self, event: events.Metrics) -> None:
        """Keep the epochs; should there be too many, every second one of the older."""
        if max(event.epoch, event.epochs) > MOST_EPOCHS:
            self.strange += 1
            return
        event.stage, event.student = as_name(event.stage), as_name(event.student)
        self.metrics.append(event)
        if len(self.metrics) > METRIC_ROWS:
            self.metrics = [*self.metrics[:-NEWEST_ROWS:2], *self.metrics[-NEWEST_ROWS:]]

    # --- losses --------------------------------------------------------------------------------------------

    def _iters(self, event: events.Iters) -> None:
        """Collect consecutive losses: adding them to the series together is what makes long runs open quickly."""
        iterations = self.hello.iterations if self.hello else 0
        start = event.chunk * iterations + event.first
        count = len(event.total)
        most = max(self.hello.chunks, 1) * iterations if self.hello and iterations else MOST_ITERATIONS
        if start + count > min(most, MOST_ITERATIONS):
            self.strange += 1
            return
        if self.ranks.count > 1 and not event.rank:
            self.ranks.take(event)
        if not self._pending.add(start, event):
            self._flush()
            self._pending.add(start, event)

    def _flush(self) -> None:
        start, found = self._pending.take()
        for term, array in found.items():
            self.losses.setdefault(term, Series()).extend(start, array)
            bad = np.flatnonzero(~np.isfinite(array))
            if term == "total" and len(bad):
                place, iterations = start + int(bad[0]), self.hello.iterations if self.hello else 0
                chunk, iteration = divmod(place, iterations) if iterations else (0, place)
                text = f"non-finite losses, from chunk {chunk}, iteration {iteration} on"
                self._alert("non-finite", text, len(bad))

    def _memory(self, event: events.Memory) -> None:
        before = (self.memory.retries or 0) if self.memory else 0
        if (event.retries or 0) > before:
            self._alert("retries", f"the GPU allocator retried {event.retries} times: memory is nearly full")
        self.memory = event
        self.ranks.take(event)

    def note_reading(self, share: float, damaged: int, unknown: int) -> None:
        """Take in how much of the file has been read, and how many of its lines could not be used."""
        self.share = share
        for cause, count, text in (
            ("damaged", damaged, "damaged lines are left out"),
            ("unknown", unknown, "events of kinds this version does not know are left out"),
            ("strange", self.strange, "events contradict the run and are left out"),
        ):
            if count > self._told.get(cause, 0):
                self._alert(cause, text, count - self._told.get(cause, 0))

    def _alert(self, cause: str, text: str, count: int = 0) -> None:
        """Add an alert, and again only when its cause has come ten times as often."""
        before = self._told.get(cause, 0)
        self._told[cause] = before + max(1, count)
        if len(str(self._told[cause])) > len(str(before)) or not before:
            self.alerts.append(f"{self._told[cause]} {text}" if count else text)


class _Losses:
    """Losses of consecutive iterations, still in their events."""

    def __init__(self) -> None:
        self._start = 0
        self._end = -1
        self._events: list[events.Iters] = []

    def add(self, start: int, event: events.Iters) -> bool:
        """Hold an event's losses; False when they do not follow on those held, or have other terms."""
        count = len(event.total)
        whole = count == len(event.ce) == len(event.feature) == len(event.bn)
        if not self._events:
            self._start = start
        elif not whole or start != self._end:
            return False
        self._events.append(event)
        # Only events whose four terms are equally long may be followed by another.
        self._end = start + count if whole else -1
        return True

    def take(self) -> tuple[int, dict[str, Array]]:
        """First iteration and values by term of what is held, which is then no longer held."""
        held, self._events = self._events, []
        pieces = {term: [getattr(event, term) for event in held] for term in TERMS}
        return self._start, {term: as_array(values) for term, values in pieces.items() if any(values)}


def as_array(pieces: Sequence[list[events.Number]]) -> Array:
    """Losses of consecutive events as one array; anything that is no number is NaN."""
    try:
        return np.fromiter(chain.from_iterable(pieces), np.float64, sum(map(len, pieces)))
    except (TypeError, ValueError):
        return np.array([number(value) for value in chain.from_iterable(pieces)], dtype=np.float64)


def number(value: float | str) -> float:
    """A loss as a float; anything that is no number is NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
