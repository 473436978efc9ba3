"""What all panels of the monitor share, and a table that leaves the left and right keys to the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.geometry import Region
from textual.widgets import DataTable

from engine.rundir import RunDir
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart

if TYPE_CHECKING:
    from wmdd_tui.app import Settings


class RowTable(DataTable[Text], inherit_bindings=False):
    """Rows are walked and opened; columns are not walked, so the cursor keys of charts stay free."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open", show=False),
        Binding("up", "cursor_up", "Up", show=False),
        Binding("down", "cursor_down", "Down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("home", "scroll_top", "First", show=False),
        Binding("end", "scroll_bottom", "Last", show=False),
    ]

    _quiet = False

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row")

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """As every widget's, but for the moment in which single cells are changed."""
        if self._quiet:
            return self
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def put(self, row: str, cells: Mapping[str, Text]) -> None:
        """Change some cells of a row and send what lies between them; the table's own way sends the whole table."""
        self._quiet = True
        try:
            for column, cell in cells.items():
                self.update_cell(row, column, cell)
        finally:
            self._quiet = False
        places = [self.get_cell_coordinate(row, column) for column in cells]
        self._refresh_region(Region.from_union([self._get_cell_region(place) for place in places]))


class Panel(Vertical):
    """One panel. ``draw`` is given the whole view, while the panel is visible and at most every ``EVERY`` seconds.

    A panel answers the keys that concern it; those that mean nothing to it do nothing and say so by returning "".
    """

    EVERY: ClassVar[float] = 1.0

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(id=id, classes=classes)
        self.run = run
        self.settings = settings

    def draw(self, view: RunView) -> None:
        raise NotImplementedError

    def as_text(self) -> str:
        """What copying and saving give."""
        raise NotImplementedError

    def take_focus(self) -> None:
        """Give the focus to what can be moved in; the screen keeps it where there is nothing."""
        self.screen.set_focus(next((child for child in self.query("*") if child.focusable and child.display), None))

    def chart(self) -> LossChart | None:
        """The chart that scale, smoothing, zoom and cursor keys concern, if the panel shows one."""
        return next((chart for chart in self.query(LossChart) if chart.display), None)

    def step(self, _by: int) -> bool:
        """Walk to a neighbour (the cursor keys); False leaves them to the chart."""
        return False

    def enter(self) -> None:
        """Go one level deeper."""

    def leave(self) -> bool:
        """Go one level back; False at the top."""
        return False

    def filter(self, _text: str) -> None:
        """Keep only what contains a text."""

    def cycle_order(self) -> str:
        """Change the order of the table; returns its name, or "" without a table to order."""
        return ""

    def cycle_term(self) -> str:
        """Change what the chart draws; returns its name, or "" without a choice."""
        return ""
