"""``wmdd-tui sweep``: a study of many runs, carried out, continued, and summed up in a table and a picture."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.errors import ConfigError, RunFailure
from wmdd_tui.cli import options
from wmdd_tui.cli.wording import flowing
from wmdd_tui.store import study, study_table
from wmdd_tui.store.studying import Slot, carry_out

StudyPath = Annotated[
    Path | None, typer.Argument(metavar="STUDY", help="A study file, TOML; docs/studies.md shows one.")
]
Grid = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="KEY=V,V", help="Values of an option. Repeatable: every combination is a row."),
]
Repeats = Annotated[int | None, typer.Option(min=1, max=100, help="Seeds a row: 0, 1, … by default those of STUDY.")]
Jobs = Annotated[int, typer.Option(min=1, max=64, help="Runs at a time on each device.")]
Devices = Annotated[
    list[str] | None, typer.Option("--device", help="A device to use: cpu, cuda:0. Repeatable; auto by default.")
]
Group = Annotated[str, typer.Option(help="Name of the study, under which Runs shows its runs together.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write results.md, .json and .svg here.")]
Minutes = Annotated[
    float | None,
    typer.Option(min=0.1, help="Stop, resumable, after so many minutes; the same command then goes on."),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Resume failed runs too.")]
TableOnly = Annotated[bool, typer.Option("--table", help="Run nothing: show what there is so far.")]


@flowing
def sweep(
    file: StudyPath = None,
    preset: options.Preset = "",
    grid: Grid = None,
    assignments: options.Assignments = None,
    repeats: Repeats = None,
    jobs: Jobs = 1,
    devices: Devices = None,
    group: Group = "",
    out: Out = None,
    minutes: Minutes = None,
    retry_failed: Retry = False,
    table_only: TableOnly = False,
    as_json: options.Json = False,
) -> None:
    """Run a study: wmdd-tui sweep --preset digits --grid recover.r_bn=1,10,100 --repeats 3

    Every row is repeated over seeds. Teachers, statistics and barycenters that rows share are made once. Ctrl-C, a
    closed terminal or --minutes lose nothing: the same command goes on where the study stopped.
    """
    console = Console(stderr=True)
    if file is not None and (preset or grid):
        raise ConfigError("both a study file and --preset or --grid are given", "use one, and --set for the rest")
    group = group or (file.stem if file is not None else "sweep")
    if file is not None:
        found = study.read_study(file)
        if repeats is not None:
            found.seeds = list(range(repeats))
        trials = study.trials_of_file(found, file.parent, assignments or [], group)
    else:
        rows = study.rows_of_grid(grid or [])
        trials = study.trials_of(options.resolve(None, preset, assignments), rows, range(repeats or 1), group)
    ended_well = table_only
    if not table_only:
        slots = [Slot(device) for device in devices or [""] for _ in range(jobs)]
        deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
        with interrupts() as asked:
            ended = carry_out(
                trials,
                slots,
                lambda text: console.print(escape(text), highlight=False, soft_wrap=True),
                lambda: bool(asked) or time.monotonic() > deadline,
                retry_failed,
            )
        for run in ended.failed:
            console.print(
                f"not finished: {escape(run.id)}; `wmdd-tui logs {run.id}` says why, --retry-failed resumes it",
                soft_wrap=True,
            )
        if ended.stopped:
            console.print("stopped; the same command goes on", soft_wrap=True)
        ended_well = not ended.failed and not ended.stopped
        code = 1 if ended.failed else 3
    lines = study_table.lines_of(study.find_runs(trials))
    if out is not None:
        write_table(out, group, lines)
    if as_json:
        print(json.dumps({"group": group, "rows": study_table.as_json(lines)}, ensure_ascii=False))
    else:
        show_table(group, lines)
    if not ended_well:
        raise typer.Exit(code)


def write_table(out: Path, title: str, lines: list[study_table.Line]) -> None:
    """Write the table as Markdown, JSON and picture. Raises RunFailure."""
    try:
        study_table.write_results(out, title, lines)
    except OSError as error:
        raise RunFailure(f"cannot write the results into {out}: {error.strerror}", "name another --out") from None


def show_table(title: str, lines: list[study_table.Line]) -> None:
    """Print the table."""
    rows = [study_table.cells(line) for line in lines]
    table = Table(title=escape(title))
    kept = [index for index in range(len(study_table.HEAD)) if any(row[index] for row in rows)]
    for index in kept:
        table.add_column(study_table.HEAD[index], justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept))
    Console().print(table)


@contextmanager
def interrupts() -> Iterator[list[int]]:
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
