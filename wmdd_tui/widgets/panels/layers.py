"""The BatchNorm term of every layer: heatmap, table, and the history of one layer."""

from __future__ import annotations

import time

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.widgets import DataTable

from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.heatmap import Heatmap
from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.table import RowTable
from wmdd_tui.widgets.views import LAYER_ORDERS, LayerRow, layer_curve, layer_history, layer_rows

HEAT_SECONDS = 10.0
HEAT_MOMENTS = 20
COLUMNS = ("layer", "value", "share", "trend")
NOTHING_YET = "no values yet"
NOTHING_FOUND = "no layer holds the text of the filter: /"
#: Said once images were made without this term.
NOTHING_MATCHED = "no values: no statistics were matched in this run"


class LayerPanel(Panel):
    """A heatmap over time and a table that can be ordered and filtered; enter opens the layer under the cursor."""

    EVERY = 2.0
    _filter = ""
    _heated: tuple[list[str], float] = ([], 0.0)
    _order = 0
    _opened: int | None = None
    _rows: list[LayerRow] = []
    _view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Heatmap()
        yield RowTable()
        yield LossChart(ascii=self.settings.ascii)

    def on_mount(self) -> None:
        table = self.query_one(RowTable)
        for key in COLUMNS:
            table.add_column(key, key=key)
        self.query_one(LossChart).display = False

    def filter(self, text: str) -> None:
        self._filter = text.lower()

    def cycle_order(self) -> str:
        self._order = (self._order + 1) % len(LAYER_ORDERS)
        return LAYER_ORDERS[self._order]

    @on(DataTable.RowSelected)
    def enter(self) -> None:
        """Show the history of the layer under the cursor."""
        table = self.query_one(RowTable)
        if self._opened is None and 0 <= table.cursor_row < len(self._rows):
            self._open(self._rows[table.cursor_row].index)

    def leave(self) -> bool:
        if self._opened is None:
            return False
        self._open(None)
        self.take_focus()
        return True

    def _open(self, index: int | None) -> None:
        self._opened = index
        for child in (self.query_one(Heatmap), self.query_one(RowTable)):
            child.display = index is None
        self.query_one(LossChart).display = index is not None
        if index is None:
            self.border_subtitle = ""
        else:
            self.screen.set_focus(None)
        if self._view is not None:
            self.draw(self._view)

    def step(self, by: int) -> bool:
        """In the history, the cursor keys move the read-out; in the table there is nothing beside a row."""
        return self._opened is None and by != 0

    def basis(self, view: RunView) -> object:
        return len(view.layers), view.layers[-1:], view.hello, view.end, _recovered(view)

    def draw(self, view: RunView) -> None:
        self._view = view
        rows = [
            row
            for row in layer_rows(view, self.settings.ascii, LAYER_ORDERS[self._order])
            if self._filter in row.cells[0].lower()
        ]
        if self._opened is not None:
            curves = layer_curve(view, self._opened)
            self.border_subtitle = Text(f"{curves.series[0][0]}: esc back" if curves.series else "esc back")
            self.query_one(LossChart).show(curves)
        self._heat(view)
        self._fill(rows)
        self._rows = rows

    def _heat(self, view: RunView) -> None:
        """The heatmap changes everywhere with every moment, and slowly in a long run: so it is drawn rarely there."""
        matrix, names = layer_history(view, self._filter)
        now, pause = time.monotonic(), min(HEAT_SECONDS, matrix.shape[1] / HEAT_MOMENTS)
        if names == self._heated[0] and now < self._heated[1] + pause and view.end is None:
            return
        self._heated = names, now
        without = NOTHING_MATCHED if _recovered(view) else NOTHING_YET
        self.query_one(Heatmap).show(matrix, names, "", NOTHING_FOUND if self._filter and view.layers else without)

    def _fill(self, rows: list[LayerRow]) -> None:
        """Update changed cells; refill only when rows come, go or move, with the cursor staying on its layer."""
        table = self.query_one(RowTable)
        if [row.index for row in rows] == [row.index for row in self._rows]:
            for old, new in zip(self._rows, rows, strict=True):
                before_now = zip(COLUMNS, old.cells, new.cells, strict=True)
                if changed := {column: Text(now) for column, before, now in before_now if before != now}:
                    table.put(str(new.index), changed)
            return
        under = self._rows[table.cursor_row].index if 0 <= table.cursor_row < len(self._rows) else None
        table.clear()
        for row in rows:
            table.add_row(*[Text(cell) for cell in row.cells], key=str(row.index))
        indices = [row.index for row in rows]
        if under in indices:
            table.move_cursor(row=indices.index(under), animate=False)

    def as_text(self) -> str:
        return "\n".join("\t".join(row) for row in [COLUMNS, *[row.cells for row in self._rows]])


def _recovered(view: RunView) -> bool:
    """Whether the images are made."""
    times = view.stages.get("recover")
    return times is not None and times.seconds is not None
