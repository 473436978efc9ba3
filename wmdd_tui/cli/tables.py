"""The table of all runs, and those of a run's report: students of several architectures, teachers of a committee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.rundir import ALIVE
from wmdd_tui.names import as_name
from wmdd_tui.store.runs import RunSummary

#: Columns of what is no terminal: whatever a line takes.
UNBOUNDED = 10_000
#: What the list of runs has besides, as many of them as there is room for.
ROOMY = ("dataset", "teacher", "λ", "name")

#: Title of a table, and its columns by the report's key: heading and form of a number.
STUDENTS = {
    "arch": ("student", ""),
    "parameters": ("parameters", ",d"),
    "top1": ("top-1 %", ".2f"),
    "top5": ("top-5 %", ".2f"),
    "best_top1": ("best top-1 %", ".2f"),
    "best_epoch": ("of epoch", "d"),
    "seconds": ("s", ".0f"),
}
COMMITTEE = {"teacher": ("further teacher", ""), "top1": ("top-1 %", ".2f"), "w2": ("W2²", ".4g")}


def of_runs(rows: Sequence[RunSummary], width: int) -> Table:
    """A line a run. Where the terminal is narrow the last columns are left out, and then long ids are folded."""
    console = Console(width=UNBOUNDED)
    for count in range(len(ROOMY), -1, -1):
        table = _runs_with(rows, ROOMY[:count])
        if console.measure(table).maximum <= width:
            break
    return table


def _runs_with(rows: Sequence[RunSummary], more: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    for title in ("state", "stage", "top-1", "ipc", *more):
        table.add_column(title, no_wrap=True)
    for row in rows:
        top1 = "" if row.last_top1 is None else f"{row.last_top1:.2f}"
        stage = f"{row.stage} {row.done}/{row.total}" if row.state in ALIVE and row.total else row.stage
        cells = (row.id, row.state, stage, top1, str(row.ipc), row.dataset, row.teacher, f"{row.r_bn:g}", row.name)
        table.add_row(*[Text(cell) for cell in cells[: 5 + len(more)]])
    return table


def of_report(report: dict[str, Any]) -> list[Table]:
    """The tables that say more than the report's own figures: several students, several teachers."""
    students, committee = _rows(report.get("students")), _rows(report.get("committee"))
    tables = [_table(STUDENTS, students)] if len(students) > 1 else []
    return [*tables, _table(COMMITTEE, committee)] if committee else tables


def _rows(value: Any) -> list[dict[str, Any]]:
    """What is a row of what a report holds, which may be anything."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _table(columns: dict[str, tuple[str, str]], rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, form in columns.values():
        table.add_column(heading, justify="right" if form else "left")
    for row in rows:
        table.add_row(*[Text(_cell(row.get(key), form)) for key, (_, form) in columns.items()])
    return table


def _cell(value: Any, form: str) -> str:
    if not form:
        return as_name(str(value or ""))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{int(value) if form.endswith('d') else value:{form}}"
