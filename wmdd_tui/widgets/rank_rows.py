"""The ranks of a run on several devices as lines of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from wmdd_tui.store.ranks import RankRow
from wmdd_tui.theme import size

HEAD = ("rank", "stage", "chunk", "share", "per s", "memory", "busy", "state")
#: More lines than these say nothing at a glance; those in trouble come first.
MOST_ROWS = 16
QUIET = ("working", "finished")


def rank_lines(rows: Sequence[RankRow]) -> list[str]:
    """A table of the ranks under a line on all of them; none for a run of one process.

    Where they are many, those that are lost, slow or waiting are shown first.
    """
    if not rows:
        return []
    rates = [row.rate for row in rows if row.rate is not None]
    counts = {state: sum(row.state == state for row in rows) for state in dict.fromkeys(row.state for row in rows)}
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    total = f" · {sum(rates):.3g} per s in all" if rates else ""
    shown = sorted(sorted(rows, key=lambda row: row.state in QUIET)[:MOST_ROWS], key=lambda row: row.number)
    cells = [HEAD, *(_cells(row) for row in shown)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    left_out = [f"and {len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    return [f"Ranks: {len(rows)}, {told}{total}", *table, *left_out]


def _cells(row: RankRow) -> tuple[str, ...]:
    return (
        f"{row.number} {row.host}".strip(),
        row.stage,
        "" if row.chunk is None else str(row.chunk),
        f"{100 * row.done / row.total:.0f} %" if row.total else "",
        "" if row.rate is None else f"{row.rate:.3g}",
        "" if row.bytes is None else size(row.bytes),
        "" if row.utilisation is None else f"{row.utilisation:.0f} %",
        row.state,
    )
