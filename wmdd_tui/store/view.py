"""Everything the monitor knows of a run, accumulated from its events. Robust to any content."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine import events
from wmdd_tui.store.series import Series

LOG_LINES = 2000
LAYER_ROWS = 256
TERMS = ("total", "ce", "feature", "bn")


@dataclass
class StageTimes:
    """Begin (Unix time), seconds once ended, whether taken from the cache."""

    begun: float = 0.0
    seconds: float | None = None
    cached: bool = False


class RunView:
    """State of a run's events; ``apply`` takes them one by one, in order."""

    def __init__(self) -> None:
        self.hello: events.Hello | None = None
        self.first_time = 0.0
        self.last_time = 0.0
        self.stages: dict[str, StageTimes] = {}
        self.progress: dict[str, events.Progress] = {}
        self.speed: dict[str, float] = {}
        self.losses: dict[str, Series] = {}
        self.layers: deque[events.Layers] = deque(maxlen=LAYER_ROWS)
        self.memory: events.Memory | None = None
        self.metrics: list[events.Metrics] = []
        self.image: events.Image | None = None
        self.log: deque[events.Log] = deque(maxlen=LOG_LINES)
        self.alerts: list[str] = []
        self.end: events.End | None = None
        self.paused = False
        self._anchor: dict[str, events.Progress] = {}

    def apply(self, event: events.AnyEvent) -> None:
        """Take in one event."""
        self.first_time = self.first_time or event.t
        self.last_time = max(self.last_time, event.t)
        match event:
            case events.Hello():
                self.hello, self.end = event, None
            case events.Stage():
                self._stage(event)
            case events.Progress():
                self._progress(event)
            case events.Iters():
                self._iters(event)
            case events.Layers():
                self.layers.append(event)
            case events.Memory():
                self._memory(event)
            case events.Metrics():
                self.metrics.append(event)
            case events.Image():
                self.image = event
            case events.Log():
                self.log.append(event)
            case events.Beat():
                self.paused = event.paused
            case events.End():
                self.end = event

    def _stage(self, event: events.Stage) -> None:
        times = self.stages.setdefault(event.stage, StageTimes())
        if event.what == "begin":
            times.begun, times.seconds = event.t, None
        else:
            times.seconds, times.cached = event.seconds, event.cached

    def _progress(self, event: events.Progress) -> None:
        """Keep the last progress, and a speed over at least ten seconds."""
        anchor = self._anchor.setdefault(event.stage, event)
        if event.done < anchor.done:
            self._anchor[event.stage] = event
        elif event.t > anchor.t and event.done > anchor.done:
            self.speed[event.stage] = (event.done - anchor.done) / (event.t - anchor.t)
            if event.t - anchor.t > 10:
                self._anchor[event.stage] = event
        self.progress[event.stage] = event

    def _iters(self, event: events.Iters) -> None:
        offset = event.chunk * (self.hello.iterations if self.hello else 0)
        for term in TERMS:
            values = [number(value) for value in getattr(event, term)]
            if values:
                self.losses.setdefault(term, Series()).extend(offset + event.first, values)
        bad = sum(not abs(number(value)) < float("inf") for value in event.total)
        if bad:
            self.alerts.append(f"{bad} non-finite losses in chunk {event.chunk} from iteration {event.first}")

    def _memory(self, event: events.Memory) -> None:
        before = (self.memory.retries or 0) if self.memory else 0
        if (event.retries or 0) > before:
            self.alerts.append(f"the GPU allocator retried {event.retries} times: memory is nearly full")
        self.memory = event


def number(value: float | str) -> float:
    """A loss as a float; anything that is no number is NaN."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
