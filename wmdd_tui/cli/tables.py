"""Tables of a run's report: students of several architectures, teachers of a committee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from wmdd_tui.names import as_name

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
