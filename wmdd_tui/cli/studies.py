"""What ``sweep`` and ``evaluate`` share: both carry out many runs, can be broken off, and end in one table."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine import errors, events
from engine.errors import RunFailure
from engine.rundir import RunDir
from wmdd_tui.store import study_table
from wmdd_tui.store.reader import latest
from wmdd_tui.store.runs import TAIL_BYTES
from wmdd_tui.store.study import Trial
from wmdd_tui.store.studying import Ended, Slot, carry_out

#: Characters a line of a table in a file may have.
FILE_WIDTH = 200

Jobs = Annotated[int, typer.Option(min=1, max=64, help="Runs at a time on each device.")]
Devices = Annotated[
    list[str] | None, typer.Option("--device", help="A device to use: cpu, cuda:0. Repeatable; auto by default.")
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write results.md, .json and .svg here.")]
Minutes = Annotated[
    float | None,
    typer.Option(min=0.1, help="Stop, resumable, after so many minutes; the same command then goes on."),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Resume failed runs too.")]


def work(
    trials: Sequence[Trial],
    devices: Sequence[str] | None,
    jobs: int,
    minutes: float | None,
    retry_failed: bool,
    since: float = 0.0,
) -> Ended:
    """Run what is not finished, saying on stderr what happens, until all is done, Ctrl-C or ``minutes`` are over.

    Runs made before ``since`` (seconds of the epoch) do not count. Raises EngineError.
    """
    console = Console(stderr=True)
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    with _interrupts() as asked:
        ended = carry_out(
            trials,
            [Slot(device) for device in devices or [""] for _ in range(jobs)],
            lambda text: console.print(escape(text), highlight=False, soft_wrap=True),
            lambda: bool(asked) or time.monotonic() > deadline,
            retry_failed,
            since,
        )
    reasons: dict[str, list[str]] = {}
    for run in ended.failed:
        end = _end_of(run)
        why = (
            f"`wmdd-tui logs {run.id}` says why"
            if end is None
            else "\n  ".join(filter(None, (end.message, end.remedy)))
        )
        reasons.setdefault(why, []).append(run.id)
    for why, names in reasons.items():
        console.print(escape(f"not finished: {', '.join(names)}: {why}"), highlight=False, soft_wrap=True)
    if reasons:
        console.print("--retry-failed resumes what is not finished", soft_wrap=True)
    if ended.stopped:
        console.print("stopped; the same command goes on", soft_wrap=True)
    return ended


def _end_of(run: RunDir) -> events.End | None:
    """What a failed run said last; None for one that was killed."""
    last = [event for event in latest(run.events_file, TAIL_BYTES).found if isinstance(event, events.End)]
    return last[-1] if last and last[-1].status == "failed" and last[-1].message else None


def leave(ended: Ended) -> None:
    """End the command with the exit code of the failed runs (1 where they differ), 3 when it was stopped.

    Raises typer.Exit, or nothing.
    """
    codes = {1 if (end := _end_of(run)) is None else errors.exit_code_of(end.error) for run in ended.failed}
    if codes:
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)
    if ended.stopped:
        raise typer.Exit(3)


def write_table(out: Path, title: str, lines: list[study_table.Line]) -> None:
    """Write the table as Markdown, JSON and picture. Raises RunFailure."""
    try:
        study_table.write_results(out, title, lines)
    except OSError as error:
        raise RunFailure(f"cannot write the results into {out}: {error.strerror}", "name another --out") from None


def show_table(title: str, lines: list[study_table.Line]) -> None:
    """Print the table; on a narrow terminal without the columns that tell least, which is said."""
    rows = [study_table.cells(line) for line in lines]
    console = Console()
    if not console.is_terminal:  # a file has room for all
        console.width = FILE_WIDTH
    filled = [index for index in range(len(study_table.HEAD)) if any(row[index] for row in rows)]
    kept = study_table.fitting(rows, filled, console.width)
    left_out = [study_table.HEAD[index] for index in filled if index not in kept]
    table = Table(title=escape(title), box=box.SIMPLE_HEAD, pad_edge=False)
    for index in kept:
        widest = max(len(row[index]) for row in rows) if index else 0
        table.add_column(study_table.HEAD[index], justify="right" if index else "left", min_width=widest)
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept))
    console.print(table)
    if left_out:
        console.print(f"no room for {', '.join(left_out)}: --json and --out have them", highlight=False)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list that fills when Ctrl-C or SIGTERM comes."""
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
