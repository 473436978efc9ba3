"""Tables of rows that are walked and opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.widgets import DataTable
from textual.widgets.data_table import ColumnKey


class Table(DataTable[Text]):
    """Textual's table with a cursor on rows, which is drawn anew once its columns have found their widths.

    Textual measures new rows when it is idle, and keeps the lines it drew before that, with their cells cut off.
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row")
        self._measured: Size | None = None

    def _on_resize(self, event: events.Resize) -> None:
        """Textual's table forgets all it has drawn, also when it is only shown again at the size it had."""
        if event.size == self._measured:
            event.prevent_default()
        self._measured = event.size

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        """Rows may have been scrolled before there was a bar, which then would begin at the top."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y

    def watch_virtual_size(self) -> None:
        self.notify_style_update()


class RowTable(Table, inherit_bindings=False):
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
                wider = cell.cell_len > self.columns[ColumnKey(column)].content_width
                self.update_cell(row, column, cell, update_width=wider)
        finally:
            self._quiet = False
        if abs(self.get_row_index(row) - self.scroll_offset.y) > self.size.height:
            return  # out of sight
        places = [self.get_cell_coordinate(row, column) for column in cells]
        self._refresh_region(Region.from_union([self._get_cell_region(place) for place in places]))
