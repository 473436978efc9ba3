"""``compare``: runs side by side in the terminal, as the dashboard's Compare screen shows them."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import rundir
from wmdd_tui.cli import options
from wmdd_tui.cli.progress import shown
from wmdd_tui.cli.wording import flowing

Runs = Annotated[
    list[str], typer.Argument(metavar="RUN RUN", help="Two runs or more: ids, unique prefixes, names or paths.")
]


@flowing
def compare(runs: Runs, as_json: options.Json = False) -> None:
    """Compare runs: what came out of each, and only the settings that differ.

    The first table holds the results: teacher and student accuracy (last and best epoch), the mean W2² of the
    barycenters, the losses of the last iteration (averaged over chunks), and the seconds of each stage; "(cache)"
    marks a stage that an earlier run had done already. The second table names every setting whose value is not the
    same in all runs, so that an empty one means: the same experiment.

    A run still under way is compared by what it has so far.

    Example: wmdd-tui compare baseline lambda-100

    Example: wmdd-tui compare 20260301-10 20260301-11 --json | jq .differences
    """
    from wmdd_tui.store import comparison  # numpy takes longer to import than other commands take to run

    with shown("reading runs") as report:
        found = comparison.compare([rundir.find(name) for name in runs], report)
    if as_json:
        print(json.dumps(comparison.as_json(found)))
        return
    console = Console()
    titles = comparison.labels(found.results)
    console.print(_table("result", titles, comparison.result_rows(found.results)))
    if found.differences:
        rows = [(key, [comparison.setting_text(value) for value in values]) for key, values in found.differences]
        console.print(_table("setting that differs", titles, rows))
    else:
        console.print("no setting differs")


def _table(corner: str, titles: list[str], rows: list[tuple[str, list[str]]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(corner, no_wrap=True)
    for title in titles:
        table.add_column(Text(title), overflow="fold")
    for name, cells in rows:
        table.add_row(Text(name), *[Text(cell) for cell in cells])
    return table
