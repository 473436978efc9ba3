"""Commands about the queues: what runs and waits on each device, and the order in which it will."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import queueing, rundir
from engine.errors import ConfigError
from wmdd_tui.cli import options

queue_app = typer.Typer(
    help="What runs and waits on each device; move and remove what waits.", invoke_without_command=True
)
RunName = Annotated[str, typer.Argument(help="A waiting run: id, unique prefix, name or path.")]


@queue_app.callback()
def queue(context: typer.Context, as_json: options.Json = False) -> None:
    """List the queues: wmdd-tui queue"""
    if context.invoked_subcommand is None:
        _list(as_json)


@queue_app.command("list")
def list_queues(as_json: options.Json = False) -> None:
    """List what runs and waits, device by device: wmdd-tui queue list --json"""
    _list(as_json)


def _list(as_json: bool) -> None:
    found = queueing.places()
    if as_json:
        print(json.dumps([asdict(place) for place in found]))
        return
    if not found:
        print("nothing runs or waits here; queue a run with `wmdd-tui run --queue`")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("device", "place", "run", "state"):
        table.add_column(title, overflow="fold")
    for place in found:
        number = str(place.position) if place.position else "at work"
        state = rundir.state_of(rundir.find(place.path))
        table.add_row(*[Text(cell) for cell in (place.device, number, place.run_id, state)])
    Console().print(table)


@queue_app.command()
def move(
    run_name: RunName,
    to: Annotated[int | None, typer.Option("--to", min=1, help="Place in the line; 1 is next.")] = None,
    first: Annotated[bool, typer.Option("--first", help="Run it next.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Run it after all others.")] = False,
    as_json: options.Json = False,
) -> None:
    """Give a waiting run another place: wmdd-tui queue move RUN --first"""
    if (to is not None) + first + last != 1:
        raise ConfigError("queue move needs exactly one of --to N, --first and --last", "1 is the next to run")
    found = rundir.find(run_name)
    place = queueing.move(found, to if to is not None else 1 if first else queueing.END)
    if as_json:
        print(json.dumps(asdict(place)))
    else:
        print(f"{found.id}: place {place.position} on {place.device}")


@queue_app.command()
def remove(run_name: RunName, as_json: options.Json = False) -> None:
    """Take a waiting run out of its queue; it can be resumed: wmdd-tui queue remove RUN"""
    found = rundir.find(run_name)
    queueing.remove(found)
    if as_json:
        print(json.dumps({"run_id": found.id, "removed": True}))
    else:
        print(f"{found.id}: leaves the queue; run it later with `wmdd-tui resume {found.id}`")
