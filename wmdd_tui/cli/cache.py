"""``cache list`` and ``cache prune``: the outputs that runs share, and the space they take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from wmdd_tui.cli import options
from wmdd_tui.cli.progress import shown
from wmdd_tui.cli.wording import flowing
from wmdd_tui.store import cache

cache_app = typer.Typer(
    help="Teachers, statistics and barycenters kept for later runs: what they take, who uses them, and pruning them.",
    no_args_is_help=True,
)
SHOWN_RUNS = 3


@cache_app.command("list")
@flowing
def list_entries(as_json: options.Json = False) -> None:
    """List what the cache holds, the largest first.

    A run takes a stage from the cache when data, teacher and all settings that matter to it are the same, so a sweep
    over λ trains its teacher once. The column "used by" names the runs that hold a copy of an entry; "idle" is the
    time since it was made or last taken by one of them.

    Example: wmdd-tui cache list --json | jq .bytes
    """
    with shown("reading runs") as report:
        found = cache.entries(report=report)
    if as_json:
        print(json.dumps(_answer(found)))
        return
    if not found:
        print(f"the cache {cache.folder()} is empty")
        return
    console = Console()
    console.print(_table(found))
    total = decimal(sum(entry.bytes for entry in found))
    console.print(Text(f"{len(found)} entries, {total}, in {cache.folder()}"), soft_wrap=True)


@cache_app.command("prune")
@flowing
def prune(
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", min=0, help="Idle for more than so many days.")
    ] = None,
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="Only until the cache is no larger: 500MB, 2GiB.")
    ] = "",
    unused: Annotated[bool, typer.Option("--unused", help="Used by no run that is still there.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove entries of the cache. No run is harmed: runs keep copies, and a later one computes what it misses.

    Say which entries: --unused and --older-than together remove what both name; --max-size removes those idle for
    longest, and stops as soon as the cache is small enough; --all removes everything and stands alone.

    Example: wmdd-tui cache prune --older-than 30 --dry-run

    Example: wmdd-tui cache prune --max-size 20GB
    """
    limit = cache.parse_size(max_size) if max_size else None
    with shown("reading runs") as report:
        found = cache.entries(report=report)
    chosen = cache.choose(found, everything, unused, older_than, limit)
    if not dry_run:
        cache.remove(chosen)
    if as_json:
        gone = {entry.path for entry in chosen}
        kept = sum(entry.bytes for entry in found if entry.path not in gone)
        print(json.dumps({"dry_run": dry_run, "removed": _answer(chosen), "kept_bytes": kept}))
        return
    console = Console()
    if chosen:
        console.print(_table(chosen))
    total = decimal(sum(entry.bytes for entry in chosen))
    console.print(f"{'would remove' if dry_run else 'removed'} {len(chosen)} of {len(found)} entries, {total}")


def _answer(found: Sequence[cache.Entry]) -> dict[str, Any]:
    return {
        "folder": str(cache.folder()),
        "bytes": sum(entry.bytes for entry in found),
        "entries": [{**asdict(entry), "path": str(entry.path)} for entry in found],
    }


def _table(found: Sequence[cache.Entry]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("kind", "key"):
        table.add_column(title, no_wrap=True)
    for title in ("size", "age", "idle"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("used by", overflow="fold")
    for entry in found:
        runs = ", ".join(entry.runs[:SHOWN_RUNS])
        more = f" and {len(entry.runs) - SHOWN_RUNS} more" if len(entry.runs) > SHOWN_RUNS else ""
        ages = [_age(seconds) for seconds in (entry.age_s, entry.idle_s)]
        table.add_row(entry.kind, entry.key[:8], decimal(entry.bytes), *ages, Text(runs + more or "no run"))
    return table


def _age(seconds: float) -> str:
    """A span in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
