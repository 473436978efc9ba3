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
from typing import Annotated, get_args

import msgspec

SCHEMA = 1
Number = float | str
#: Bounds that every reader may rely on: a line that breaks them is damaged. Numbers beyond overflow in arithmetic.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class Event(msgspec.Struct, tag_field="kind", kw_only=True, omit_defaults=True):
    """Fields of every event: ``t`` is Unix time in seconds."""

    t: Time = 0.0


class Hello(Event, tag="hello"):
    """First event of every engine process (a resumed run has several)."""

    schema: Count = SCHEMA
    stages: list[str] = []
    classes: Count = 0
    class_names: list[str] = []
    ipc: Count = 0
    chunks: Count = 0
    iterations: Count = 0
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
    done: Count
    total: Count
    unit: str = ""
    note: str = ""


class Iters(Event, tag="iters"):
    """Losses of consecutive iterations of one chunk, from iteration ``first`` on. ``lr`` likewise."""

    chunk: Count
    first: Count
    total: list[Number]
    ce: list[Number] = []
    feature: list[Number] = []
    bn: list[Number] = []
    lr: list[Number] = []


class Layers(Event, tag="layers"):
    """BatchNorm term of every layer (order of ``Hello.layers``) at one iteration of one chunk."""

    chunk: Count
    iteration: Count
    values: list[Number]


class Memory(Event, tag="memory"):
    """Bytes, except percentages, watts and degrees. Device figures are absent without a GPU."""

    rss: Count = 0
    cpu_percent: float = 0.0
    host_total: Count = 0
    host_available: Count = 0
    allocated: Count | None = None
    reserved: Count | None = None
    peak: Count | None = None
    inactive_split: Count | None = None
    retries: Count | None = None
    ooms: Count | None = None
    device_total: Count | None = None
    device_free: Count | None = None
    utilisation: float | None = None
    power: float | None = None
    temperature: float | None = None


class Metrics(Event, tag="metrics"):
    """Epoch figures of squeeze or train; top-1 and top-5 are percentages."""

    stage: str
    epoch: Count
    epochs: Count
    loss: Number = 0.0
    top1: float | None = None
    top5: float | None = None
    lr: float | None = None
    note: str = ""


class Image(Event, tag="image"):
    """A preview of the chunk being recovered is ready at ``path`` (relative to the run directory)."""

    chunk: Count
    iteration: Count
    path: str
    classes: list[Count] = []


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
#: The kinds this version knows.
KINDS = frozenset(str(one.__struct_config__.tag) for one in get_args(AnyEvent))
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


def decode_lines(data: bytes) -> list[AnyEvent] | None:
    """Many lines at once, which is several times faster; None when one of them is no known event."""
    try:
        return _decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


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
