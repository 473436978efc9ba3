"""A stacked bar of bytes with a tick at the peak."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

#: Each part has a glyph of its own, so the bar is readable without colour and in ASCII.
GLYPHS = "#=+-."


class Gauge(Widget):
    """Parts of a total as one row; ``|`` marks the peak."""

    DEFAULT_CSS = "Gauge { height: 1; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown: tuple[tuple[tuple[str, float, str], ...], float, float | None] = ((), 1.0, None)

    def show(self, parts: Sequence[tuple[str, float, str]], total: float, peak: float | None) -> None:
        """Parts are (label, value, colour); the rest of ``total`` is free."""
        shown = (tuple(parts), max(total, 1.0), peak)
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y or width < 3:
            return Strip.blank(width)
        parts, total, peak = self._shown
        cells = [("·" if not self.app.no_color else " ", "")] * width
        position = 0.0
        for index, (_, value, colour) in enumerate(parts):
            start, position = round(position), position + max(0.0, value) / total * width
            for x in range(start, min(width, round(position))):
                cells[x] = (GLYPHS[index % len(GLYPHS)], colour)
        if peak is not None:
            x = min(width - 1, int(peak / total * width))
            cells[x] = ("|", cells[x][1])
        return Strip([Segment(text, Style.parse(colour) if colour else None) for text, colour in cells]).simplify()
