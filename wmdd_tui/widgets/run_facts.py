"""A few lines about a run: what it is, how its loss fell, what came out. Pure functions over its files."""

from __future__ import annotations

import os

from rich.text import Text

from engine import events
from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.names import as_name
from wmdd_tui.quantities import LARGEST
from wmdd_tui.store.runs import RunSummary

TAIL_BYTES = 1 << 20
BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-=+*#@"


def sparkline(values: list[float], width: int, ascii_only: bool) -> str:
    """Values as bars, the mean of each column's share."""
    if not values:
        return ""
    width = min(width, len(values))
    means = []
    for column in range(width):
        part = values[column * len(values) // width : (column + 1) * len(values) // width]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    bars = ASCII_BARS if ascii_only else BARS
    return "".join(bars[int((mean - low) / (high - low or 1) * (len(bars) - 1))] for mean in means)


def last_losses(run: RunDir) -> list[float]:
    """Total losses that can be drawn, from the tail of the events."""
    try:
        with run.events_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return []
    found: list[float] = []
    for line in lines:
        event = events.decode(line) if b'"iters"' in line else None
        if isinstance(event, events.Iters):
            found += [float(value) for value in event.total if not isinstance(value, str) and abs(value) <= LARGEST]
    return found


def facts_of(run: RunDir, summary: RunSummary, ascii_only: bool) -> Text:
    """The preview of a run."""
    text = Text(f"{as_name(summary.id)}\n", style="bold", overflow="ellipsis")
    if summary.problem:
        return text.append(summary.problem, style="not bold")
    plain = Text(overflow="ellipsis")
    losses = last_losses(run)
    if losses:
        plain.append(f"loss {losses[-1]:.4g}  {sparkline(losses, 32, ascii_only)}\n")
    try:
        config = run.config()
        plain.append(
            f"{summary.dataset} {config.data.resolution} px · {config.teacher.arch} ({config.teacher.source})"
            f" · {config.ipc} IPC\n"
            f"{config.recover.objective} · {config.recover.iterations} iterations · lr {config.recover.lr:g}"
            f" · λ {config.recover.r_bn:g}\n"
            f"student {', '.join(config.student_archs)} · {config.train.epochs} epochs · seed {config.seed}\n"
        )
    except EngineError as error:
        plain.append(str(error) + "\n")
    if summary.last_top1 is not None:
        teacher = f" · teacher {summary.teacher_top1:.2f} %" if summary.teacher_top1 is not None else ""
        plain.append(f"top-1 {summary.last_top1:.2f} %{teacher}\n")
    if summary.message:
        plain.append(" ".join(summary.message.split()))
    return Text("").append_text(text).append_text(plain)
