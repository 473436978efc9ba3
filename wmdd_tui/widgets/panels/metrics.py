"""Evaluation: loss and accuracies by epoch."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult

from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.table import RowTable
from wmdd_tui.widgets.views import accuracy_curves, epoch_loss_curves, metric_rows

COLUMNS = ("stage", "epoch", "loss", "top-1", "top-5")


class MetricsPanel(Panel):
    """The student's accuracies against epochs, and as a level line the teacher's, trained on all data; or the loss.

    The table lists the evaluations; what is copied has every epoch.
    """

    _cells: list[tuple[str, ...]] = []
    _every: list[tuple[str, ...]] = []
    _losses = False

    def compose(self) -> ComposeResult:
        yield LossChart(ascii=self.settings.ascii)
        yield RowTable()

    def on_mount(self) -> None:
        self.query_one(RowTable).add_columns(*COLUMNS)

    def cycle_term(self) -> str:
        self._losses = not self._losses
        return "loss by epoch" if self._losses else "accuracy by epoch"

    def basis(self, view: RunView) -> object:
        return len(view.metrics), view.metrics[-1:]

    def draw(self, view: RunView) -> None:
        self.query_one(LossChart).show(epoch_loss_curves(view) if self._losses else accuracy_curves(view))
        self._every = metric_rows(view)
        # A loss alone is better read from the chart; among hundreds of them the accuracies would be lost.
        cells = [row for row in self._every if row[3]] or self._every
        table = self.query_one(RowTable)
        if cells[: len(self._cells)] != self._cells:
            table.clear()
            self._cells = []
        for row in cells[len(self._cells) :]:
            table.add_row(*[Text(cell) for cell in row])
        if len(cells) > len(self._cells):
            table.move_cursor(row=len(cells) - 1, animate=False)
        self._cells = cells

    def as_text(self) -> str:
        return "\n".join("\t".join(row) for row in [COLUMNS, *self._every])
