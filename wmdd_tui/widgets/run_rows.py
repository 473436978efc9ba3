"""The table of runs as pure functions: which rows, in what order, with what cells."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rich.text import Text

from engine import rundir
from engine.queueing import Place
from wmdd_tui.store.runs import RunSummary
from wmdd_tui.theme import duration, state_text

COLUMNS = (
    ("mark", " "), ("state", "state"), ("name", "name"), ("stage", "stage"), ("top1", "top-1"), ("best", "best"),
    ("speed", "it/s"), ("eta", "ETA"), ("dataset", "dataset"), ("teacher", "teacher"), ("ipc", "IPC"),
    ("r_bn", "λ"), ("age", "age"),
)  # fmt: skip
#: Left out where there is no room; all but the age stand in the preview.
FOR_WIDE = frozenset({"dataset", "teacher", "ipc", "r_bn", "age"})
ORDERS = ("newest", "name", "state", "best top-1", "dataset")
NAME_LENGTH = 20


def chosen(summaries: Iterable[RunSummary], text: str, order: str, pinned: Collection[str]) -> list[RunSummary]:
    """Runs that hold every word of a text, in an order, pinned ones first. ``summaries`` come newest first."""
    words = text.lower().split()
    rows = [
        row
        for row in summaries
        if all(word in f"{row.id} {row.name} {row.state} {row.dataset} {row.teacher}".lower() for word in words)
    ]
    match order:
        case "name":
            rows.sort(key=lambda row: row.name)
        case "state":
            rows.sort(key=lambda row: (row.state not in rundir.ALIVE, row.state))
        case "best top-1":
            rows.sort(key=lambda row: -(row.best_top1 if row.best_top1 is not None else -1))
        case "dataset":
            rows.sort(key=lambda row: row.dataset)
    rows.sort(key=lambda row: row.id not in pinned)
    return rows


def signs(marked: bool, pinned: bool, ascii_only: bool) -> str:
    """Two cells: marked for comparison, pinned to the top."""
    mark, pin = ("*", "^") if ascii_only else ("●", "▲")
    return (mark if marked else " ") + (pin if pinned else " ")


def cells_of(row: RunSummary, place: Place | None, sign: str, ascii_only: bool, dark: bool) -> list[Text]:
    """The cells of one run, a column each; ``place`` is where it waits in a queue."""
    alive = row.state in rundir.ALIVE
    stage = f"{row.stage} {100 * row.done // row.total}%" if alive and row.total else row.stage
    if place is not None and place.position:
        stage = f"#{place.position} on {place.device}"
    name = " ".join(row.name.split())
    return [
        Text(sign),
        state_text(row.state, ascii_only, dark),
        Text(name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"),
        Text(stage),
        Text("" if row.last_top1 is None else f"{row.last_top1:.2f}", justify="right"),
        Text("" if row.best_top1 is None else f"{row.best_top1:.2f}", justify="right"),
        Text(f"{row.its_per_s:.3g}" if alive and row.its_per_s else "", justify="right"),
        Text(duration(row.eta_s) if alive else "", justify="right"),
        Text(row.dataset[:16]),
        Text(row.teacher[:16]),
        Text(str(row.ipc), justify="right"),
        Text(f"{row.r_bn:g}", justify="right"),
        Text(_coarse(row.age_s), justify="right"),
    ]


def _coarse(seconds: float) -> str:
    """An age that changes by the minute, so that the table is not redrawn every second."""
    return "now" if seconds < 60 else duration(seconds // 60 * 60).replace("m00", "m")
