"""Widgets of rows of which only the cells that changed are sent to the terminal.

Textual sends dirty regions again as they are. So a new row is compared with the one on screen cell by cell, and only
the range between the first and the last difference is declared dirty. (Textual 8 sends a range from the widget's left
edge on, so several ranges in a row would cost more than one.)
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual.geometry import Region, Size
from textual.reactive import Reactive
from textual.strip import Strip
from textual.widget import Widget

Cell = tuple[str, Style | None]


def cells_of(strip: Strip) -> list[Cell]:
    """One entry a cell; the second cell of a wide character is an empty text."""
    found: list[Cell] = []
    for text, style, _ in strip:
        if text.isascii():
            found += [(character, style) for character in text]
            continue
        for character in text:
            found.append((character, style))
            found += [("", style)] * (cell_len(character) - 1)
    return found


def differing(old: Strip, new: Strip) -> tuple[int, int] | None:
    """The half-open range of cells that holds all differences; None where there are none."""
    before, now = cells_of(old), cells_of(new)
    if before == now:
        return None
    shorter, longer = sorted((len(before), len(now)))
    start = next((x for x in range(shorter) if before[x] != now[x]), shorter)
    stop = longer
    if shorter == longer:
        while before[stop - 1] == now[stop - 1]:
            stop -= 1
    return start, stop


class Painted(Widget):
    """A widget that makes its rows whole, and sends what changed of them. It does not scroll.

    A kind of it says in ``rows`` what it shows and calls ``repaint`` when that changes. At a new size the rows are made
    when they are first asked for, so no frame shows those of the size before.
    """

    # Textual lays out the screen once more when this changes, for scrollbars that might come or go.
    virtual_size = Reactive(Size(0, 0))

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: list[Strip] = []
        self._rows_size: Size | None = None
        self._base: Style | None = None

    def rows(self) -> list[Strip]:
        """What is shown at the present size."""
        raise NotImplementedError

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.repaint())

    def on_resize(self) -> None:
        if self.size != self._rows_size:
            self.repaint()

    def repaint(self) -> None:
        """Show what there is now. Another number of rows paints the widget anew."""
        old = self._rows
        rows = self._make_rows()
        if len(rows) != len(old):
            self.refresh()
            return
        regions = []
        for y, (before, now) in enumerate(zip(old, rows, strict=True)):
            if before != now and (span := differing(before, now)):
                regions.append(Region(span[0], y, span[1] - span[0], 1))
        if regions:
            self.refresh(*regions)

    def _make_rows(self) -> list[Strip]:
        self._rows, self._rows_size = self.rows(), self.size
        return self._rows

    def render_lines(self, crop: Region) -> list[Strip]:
        """As every widget's, but its style, which is sought through all its ancestors, is found once for all rows."""
        if self.size != self._rows_size:
            self._make_rows()
        self._base = self.rich_style
        try:
            return super().render_lines(crop)
        finally:
            self._base = None

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        row = self._rows[y] if y < len(self._rows) else Strip.blank(width)
        return row.adjust_cell_length(width).apply_style(self._base or self.rich_style)


class Lines(Painted):
    """Text, wrapped to the widget's width unless it says not to; it is laid out anew only when it needs more rows."""

    DEFAULT_CSS = "Lines { height: auto; width: 1fr; }"

    def __init__(self, text: str | Text = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.content = Text(text) if isinstance(text, str) else text

    def update(self, text: str | Text) -> None:
        """Show a text, literally; the same one again costs nothing."""
        shown = Text(text) if isinstance(text, str) else text
        if shown == self.content:
            return
        self.content = shown
        width = self.content_size.width
        if self.styles.is_auto_height and len(self._wrapped(width)) != len(self._rows):
            self.refresh(layout=True)
        self.repaint()

    def _wrapped(self, width: int) -> list[Strip]:
        console = self.app.console
        no_wrap = self.content.no_wrap
        lines = self.content.wrap(console, max(1, width), overflow=self.content.overflow, no_wrap=no_wrap)
        return [Strip(line.render(console)).adjust_cell_length(max(1, width)) for line in lines]

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        return len(self._wrapped(width))

    def rows(self) -> list[Strip]:
        return self._wrapped(self.content_size.width) if self.content_size.width else []
