"""Events of a run: typed JSON lines, appended by the engine and read by anyone.

One event a line, one ``write`` a line. Readers stop at the last newline, ignore unknown kinds and fields,
and refuse a newer major schema. Non-finite numbers travel as the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

SCHEMA = 1
Number = float | str


class Event(msgspec.Struct, tag_field="kind", kw_only=True, omit_defaults=True):
    """Fields of every event: ``t`` is Unix time in seconds."""

    t: float = 0.0


class Hello(Event, tag="hello"):
    """First event of every engine process (a resumed run has several)."""

    schema: int = SCHEMA
    stages: list[str] = []
    classes: int = 0
    class_names: list[str] = []
    ipc: int = 0
    chunks: int = 0
    iterations: int = 0
    layers: list[str] = []
    device: str = ""
    pid: int = 0
    resumed: bool = False


class Stage(Event, tag="stage"):
    """Begin or end of a stage; ``seconds`` at the end. ``cached`` when taken from the artifact cache."""

    stage: str
    what: str
    seconds: float = 0.0
    cached: bool = False


class Progress(Event, tag="progress"):
    """``done`` of ``total`` units of a stage."""

    stage: str
    done: int
    total: int
    unit: str = ""
    note: str = ""


class Iters(Event, tag="iters"):
    """Losses of consecutive iterations of one chunk, from iteration ``first`` on. ``lr`` likewise."""

    chunk: int
    first: int
    total: list[Number]
    ce: list[Number] = []
    feature: list[Number] = []
    bn: list[Number] = []
    lr: list[Number] = []


class Layers(Event, tag="layers"):
    """BatchNorm term of every layer (order of ``Hello.layers``) at one iteration of one chunk."""

    chunk: int
    iteration: int
    values: list[Number]


class Memory(Event, tag="memory"):
    """Bytes, except percentages, watts and degrees. Device figures are absent without a GPU."""

    rss: int = 0
    cpu_percent: float = 0.0
    host_total: int = 0
    host_available: int = 0
    allocated: int | None = None
    reserved: int | None = None
    peak: int | None = None
    inactive_split: int | None = None
    retries: int | None = None
    ooms: int | None = None
    device_total: int | None = None
    device_free: int | None = None
    utilisation: float | None = None
    power: float | None = None
    temperature: float | None = None


class Metrics(Event, tag="metrics"):
    """Epoch figures of squeeze or train; top-1 and top-5 are percentages."""

    stage: str
    epoch: int
    epochs: int
    loss: Number = 0.0
    top1: float | None = None
    top5: float | None = None
    lr: float | None = None
    note: str = ""


class Image(Event, tag="image"):
    """A preview of the chunk being recovered is ready at ``path`` (relative to the run directory)."""

    chunk: int
    iteration: int
    path: str
    classes: list[int] = []


class Log(Event, tag="log"):
    """A line for people; ``level`` is info, warning or error."""

    message: str
    level: str = "info"


class Beat(Event, tag="beat"):
    """Heartbeat. ``queued`` while the engine waits for its device."""

    paused: bool = False
    queued: bool = False


class End(Event, tag="end"):
    """Last event of an engine process: finished, stopped or failed."""

    status: str
    error: str = ""
    message: str = ""
    remedy: str = ""
    seconds: float = 0.0


AnyEvent = Hello | Stage | Progress | Iters | Layers | Memory | Metrics | Image | Log | Beat | End
_decoder = msgspec.json.Decoder(AnyEvent)
_encoder = msgspec.json.Encoder()


def numbers(values: Sequence[float]) -> list[Number]:
    """Floats at six significant digits, non-finite ones as strings."""
    return [float(f"{value:.6g}") if math.isfinite(value) else str(value) for value in values]


def decode(line: bytes) -> AnyEvent | None:
    """One line to an event; None for a line that is no known event."""
    try:
        event: AnyEvent = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event


def read(path: Path) -> Iterator[AnyEvent]:
    """All complete events of a file, in order. Unknown or damaged lines are left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and (event := decode(line)) is not None:
                yield event


class Writer:
    """Appends events to a file. A failing disk loses telemetry, never the computation, and says so once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.lost = 0
        self._partial = _ends_inside_line(path)

    def write(self, event: Event) -> None:
        if not event.t:
            event.t = round(time.time(), 3)
        line = _encoder.encode(event) + b"\n"
        if self._partial:
            line = b"\n" + line
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            if not self.lost:
                print(f"telemetry lost: {error}", file=sys.stderr, flush=True)
            self.lost += 1
            return
        self._partial = written < len(line)

    def close(self) -> None:
        os.close(self._descriptor)


def _ends_inside_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
