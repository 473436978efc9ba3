"""Events of a run: typed JSON lines, appended by the engine and read by anyone.

One event a line, one ``write`` a line. Readers stop at the last newline, ignore unknown kinds and fields,
and refuse a newer major schema. Non-finite numbers travel as the strings "nan", "inf" and "-inf".
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec

SCHEMA = 1
Number = float | str
#: Bounds that every reader may rely on: a line that breaks them is damaged. Numbers beyond overflow in arithmetic.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Figure = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class Event(msgspec.Struct, tag_field="kind", kw_only=True, omit_defaults=True):
    """Fields of every event: ``t`` is Unix time in seconds, ``rank`` which process of a group wrote it."""

    t: Time = 0.0
    rank: Count = 0


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
    ranks: Count = 1
    host: str = ""


class Stage(Event, tag="stage"):
    """Begin or end of a stage; ``seconds`` at the end. ``cached`` when taken from the artifact cache."""

    stage: str
    what: str
    seconds: Figure = 0.0
    cached: bool = False


class Progress(Event, tag="progress"):
    """``done`` of ``total`` units of a stage."""

    stage: str
    done: Count
    total: Count
    unit: str = ""
    note: str = ""


class Iters(Event, tag="iters"):
    """Losses of consecutive iterations of one chunk, from iteration ``first`` on."""

    chunk: Count
    first: Count
    total: list[Number]
    ce: list[Number] = []
    feature: list[Number] = []
    bn: list[Number] = []


class Layers(Event, tag="layers"):
    """BatchNorm term of every layer (order of ``Hello.layers``) at one iteration of one chunk."""

    chunk: Count
    iteration: Count
    values: list[Number]


class Memory(Event, tag="memory"):
    """Bytes, except percentages, watts and degrees. Device figures are absent without a GPU."""

    rss: Count = 0
    cpu_percent: Figure = 0.0
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
    utilisation: Figure | None = None
    power: Figure | None = None
    temperature: Figure | None = None


class Metrics(Event, tag="metrics"):
    """Epoch figures of squeeze or train; top-1 and top-5 are percentages.

    Of several students each is named; ``stage`` is "train" for the first, "cross" for the others. A "verifier", which
    is named too, speaks of the images of ``chunk`` after ``epoch`` of ``epochs`` iterations.
    """

    stage: str
    epoch: Count
    epochs: Count
    loss: Number = 0.0
    top1: Percent | None = None
    top5: Percent | None = None
    lr: Figure | None = None
    student: str = ""
    note: str = ""
    chunk: Count | None = None


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
    seconds: Figure = 0.0


AnyEvent = Hello | Stage | Progress | Iters | Layers | Memory | Metrics | Image | Log | Beat | End
#: The kinds this version knows.
KINDS = frozenset(str(one.__struct_config__.tag) for one in get_args(AnyEvent))
#: What decoding a line can raise; brackets without end exhaust the parser's stack.
NOT_AN_EVENT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decoder = msgspec.json.Decoder(AnyEvent)
_encoder = msgspec.json.Encoder()


def numbers(values: Sequence[float]) -> list[Number]:
    """Floats at six significant digits, non-finite ones as strings."""
    return [float(f"{value:.6g}") if math.isfinite(value) else str(value) for value in values]


def decode(line: bytes) -> AnyEvent | None:
    """One line to an event; None for a line that is no known event."""
    try:
        event: AnyEvent = _decoder.decode(line)
    except NOT_AN_EVENT:
        return None
    return event


def decode_lines(data: bytes) -> list[AnyEvent] | None:
    """Many lines at once, which is several times faster; None when one of them is no known event."""
    try:
        return _decoder.decode_lines(data)
    except NOT_AN_EVENT:
        return None


def read(path: Path) -> Iterator[AnyEvent]:
    """All complete events of a file, in order. Unknown or damaged lines are left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and (event := decode(line)) is not None:
                yield event


class Writer:
    """Appends events to a file, from any thread. A failing disk loses telemetry, never the computation.

    The loss is said at once on stderr, and as an event as soon as the disk takes one again.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self._rank = rank
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._lost = 0
        self._reason = "a line was cut short"
        self._partial = _ends_inside_line(path)

    def write(self, event: Event) -> None:
        if not event.t:
            event.t = round(time.time(), 3)
        event.rank = self._rank
        with self._lock:
            if self._append(event) and self._lost:
                lost, self._lost = self._lost, 0
                message = f"{lost} events before this one were lost: {self._reason}"
                if not self._append(Log(t=event.t, rank=self._rank, message=message, level="warning")):
                    self._lost += lost

    def _append(self, event: Event) -> bool:
        line = _line(event)
        if self._partial:
            line = b"\n" + line
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._reason = error.strerror or str(error)
            if not self._lost:
                with suppress(OSError):  # stderr may lie on the same disk
                    print(f"telemetry lost: {error}", file=sys.stderr, flush=True)
            written = 0
        else:
            self._partial = written < len(line)
        whole = written == len(line)
        self._lost += not whole
        return whole

    def close(self) -> None:
        os.close(self._descriptor)


def _line(event: Event) -> bytes:
    """An event as a line. File names of other encodings come as lone surrogates, which no UTF-8 holds: escaped."""
    try:
        return _encoder.encode(event) + b"\n"
    except UnicodeEncodeError:
        return _encoder.encode(_escaped(msgspec.to_builtins(event))) + b"\n"


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return {key: _escaped(one) for key, one in value.items()} if isinstance(value, dict) else value


def _ends_inside_line(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
