"""What finished runs tell of a device: seconds of their stages and peaks of their memory, from their own events.

Only what was measured whole counts: no stage that came from the cache, was resumed half-way or paused. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine import events
from engine.config import RunConfig
from engine.errors import EngineError
from engine.rundir import RunDir, list_runs
from wmdd_tui.store.counts import DataCounts, data_counts
from wmdd_tui.store.speed import Sample, point_of, sample_of
from wmdd_tui.store.workload import DATA, START, loads_of

#: Runs that are looked at, the newest.
MOST_RUNS = 24
#: A stage that seems to have taken longer is damage.
MOST_SECONDS = 1e8
#: No event that matters here has a longer line.
MOST_LINE_BYTES = 1 << 20
#: Beginnings of the lines that matter: a long run's many others are passed over without decoding.
WANTED = tuple(
    f'{{"kind":"{kind}"'.encode()
    for kind in ("hello", "stage", "memory", "beat", "end", 'progress","stage":"data', 'progress","stage":"statistics')
)


@dataclass(frozen=True, eq=False)
class Measured:
    """A run's own figures, read once. ``device`` tells machines apart: "cpu HOST", or the name of a GPU.

    ``seconds`` by stage, ``share`` of its threads' time that the process got in each (1 on a GPU), ``peak`` bytes of
    resident memory, or of allocated memory on a GPU, 0 unless the run finished in one go. ``cached`` stages were not
    computed.
    """

    directory: RunDir
    config: RunConfig
    device: str
    cuda: bool
    data: DataCounts
    resident: bool
    seconds: dict[str, float]
    share: dict[str, float]
    peak: int
    cached: frozenset[str]


def device_key(title: str, host: str) -> str:
    """How runs' devices are told apart, from what the engine calls them: "cpu, 2 threads", "cuda:0 NVIDIA H100"."""
    return title.partition(" ")[2] if title.startswith("cuda") else f"cpu {host}"


def measured_runs(root: Path | None = None) -> list[Measured]:
    """The newest runs that have finished at least one stage."""
    found = []
    for run in list_runs(root)[:MOST_RUNS]:
        try:
            facts = run.events_file.stat()
            one = _measured(run, facts.st_size, facts.st_mtime_ns)
        except (OSError, EngineError):
            continue  # deleted meanwhile, or of another version's configuration
        if one is not None and one.seconds:
            found.append(one)
    return found


@lru_cache(maxsize=4 * MOST_RUNS)
def _measured(run: RunDir, _size: int, _changed: int) -> Measured | None:
    config = run.config()
    reading = _Reading()
    for event in _lines(run.events_file):
        reading.take(event)
    if reading.newer or not reading.device:
        return None
    data = data_counts(config.data)
    if reading.train and reading.decoded > reading.train:
        pixels = data.pixels if data else config.data.resolution**2
        data = DataCounts(reading.classes, reading.train, reading.decoded - reading.train, pixels)
    if data is None:
        return None
    host = str((run.process() or {}).get("host", ""))
    threads = config.run.threads
    cuda = reading.device.startswith("cuda")
    whole = sum(map(sum, reading.busy.values())) / max(1, sum(map(len, reading.busy.values()))) / (100 * threads)
    share = {
        stage: sum(found) / len(found) / (100 * threads) if (found := reading.busy.get(stage)) else whole
        for stage in reading.seconds
    }
    return Measured(
        directory=run,
        config=config,
        device=device_key(reading.device, host),
        cuda=cuda,
        data=data,
        resident=bool(reading.decoded),
        seconds=reading.seconds,
        share=dict.fromkeys(reading.seconds, 1.0) if cuda else share,
        peak=reading.peak if reading.finished else 0,
        cached=frozenset(reading.cached),
    )


def _lines(path: Path) -> Iterator[events.AnyEvent]:
    """The events that matter; lines that are too long to be one are passed over in pieces."""
    whole = True
    with path.open("rb") as file:
        while line := file.readline(MOST_LINE_BYTES):
            complete = line.endswith(b"\n")
            if whole and complete and line.startswith(WANTED) and (event := events.decode(line)) is not None:
                yield event
            whole = complete


class _Reading:
    """Takes a run's events in order, of several processes where it was resumed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.busy: dict[str, list[float]] = {}
        self.device, self.classes, self.train, self.decoded, self.peak = "", 0, 0, 0, 0
        self.finished = self.newer = False
        self.cached: set[str] = set()
        self._begun: set[str] = set()
        self._stage, self._first, self._hello = "", 0.0, 0.0
        self._spoiled = False
        self._whole = True

    def take(self, event: events.AnyEvent) -> None:
        """One more event."""
        self._first = self._first or event.t
        if isinstance(event, events.Hello):
            self.device, self.classes = event.device, event.classes
            self.newer = self.newer or event.schema > events.SCHEMA
            self._whole = self._whole and not self._hello and not event.resumed
            self._hello = event.t
            if self._whole and self.decoded:
                self.seconds[DATA] = event.t - self._first
        elif isinstance(event, events.Progress):
            if event.stage == DATA:
                self.decoded = event.total
            else:
                self.train = event.total
        elif isinstance(event, events.Stage):
            self._stage_event(event)
        elif isinstance(event, events.Memory):
            self.busy.setdefault(self._stage or DATA, []).append(event.cpu_percent)
            self.peak = max(self.peak, event.rss if event.peak is None else event.peak)
        elif isinstance(event, events.Beat):
            self._spoiled = self._spoiled or event.paused
        elif isinstance(event, events.End):
            self.finished = event.status == "finished" and self._whole
            if self.finished:
                self.seconds[START] = min(MOST_SECONDS, max(0.0, event.seconds - (event.t - self._first)))

    def _stage_event(self, event: events.Stage) -> None:
        if event.what == "begin":
            self._spoiled = event.stage in self._begun  # its first part was another process's
            self._begun.add(event.stage)
            self._stage = event.stage
            return
        if event.cached:
            self.cached.add(event.stage)
        elif not self._spoiled and 0 <= event.seconds < MOST_SECONDS:
            self.seconds[event.stage] = event.seconds
        self._stage = ""


def samples_of(found: Sequence[Measured], cores: int) -> tuple[Sample, ...]:
    """The measured stages of runs on one device whose work is known."""
    return _samples(tuple(found), cores)


@lru_cache(maxsize=8)
def _samples(found: tuple[Measured, ...], cores: int) -> tuple[Sample, ...]:
    rows = [
        (run, point_of(load, run.config.run, run.cuda, cores))
        for run in found
        for load in loads_of(run.config, run.data, run.cuda, run.resident)
        if load.known and load.stage in run.seconds
    ]
    shares = [(point, run.share[point.stage]) for run, point in rows]
    return tuple(
        sample_of(run.directory.id, point, run.seconds[point.stage], run.share[point.stage], shares)
        for run, point in rows
    )
