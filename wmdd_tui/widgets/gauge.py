"""A stacked bar of bytes with a tick at the peak."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from wmdd_tui.theme import series_colours

#: Each part has a glyph of its own, so the bar is readable without colour and in ASCII.
GLYPHS = "#=+-"
FREE = "."
PEAK = "|"


class Gauge(Widget):
    """Parts of a total as one row; ``|`` marks the peak."""

    DEFAULT_CSS = "Gauge { height: 1; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[tuple[tuple[str, float, int], ...], float, float | None] = ((), 1.0, None)

    def show(self, parts: Sequence[tuple[str, float, int]], total: float, peak: float | None) -> None:
        """Parts are (label, value, slot of the series colours); the rest of ``total`` is free."""
        shown = (tuple(parts), max(total, 1.0), peak)
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.refresh())

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y or width < 3:
            return Strip.blank(width, self.rich_style)
        parts, total, peak = self._shown
        colours = series_colours(self.app.current_theme.dark)
        cells = [(FREE, "")] * width
        position = 0.0
        for index, (_, value, slot) in enumerate(parts):
            start, position = round(position), position + max(0.0, value) / total * width
            for x in range(start, min(width, round(position))):
                cells[x] = (GLYPHS[index % len(GLYPHS)], colours[slot])
        if peak is not None:
            x = min(width - 1, int(peak / total * width))
            cells[x] = (PEAK, cells[x][1])
        row = Strip([Segment(text, Style.parse(colour) if colour else None) for text, colour in cells])
        return row.simplify().apply_style(self.rich_style)
