"""A matrix as shaded cells: a row a layer, a column a moment."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from wmdd_tui.theme import heat_colours
from wmdd_tui.widgets.painted import Painted

#: Glyph and colour rise together, so the shade is readable without colour.
RAMP = " .:-=+*#%@"


class Heatmap(Painted):
    """Shades on a logarithmic scale between the smallest and largest positive value."""

    DEFAULT_CSS = "Heatmap { height: 1fr; min-height: 3; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._matrix: npt.NDArray[np.float64] = np.zeros((0, 0))
        self._names: list[str] = []
        self._empty = ""

    def show(self, matrix: npt.NDArray[np.float64], names: list[str], title: str, empty: str = "") -> None:
        """Show a matrix (layers, moments) with the layers' names.

        ``title`` stands on the border; ``empty`` is said where there is no layer to show.
        """
        self._matrix, self._names, self._empty = np.asarray(matrix, dtype=np.float64), names, empty
        if (title or None) != self.border_title:  # setting it paints the whole widget anew
            self.border_title = title or None
        self.repaint()

    def rows(self) -> list[Strip]:
        width, height = self.size
        if not self._names:
            return [Strip([Segment(self._empty[:width].ljust(width))])] if width > 0 else []
        positive = self._matrix[np.isfinite(self._matrix) & (self._matrix > 0)]
        low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
        return [self._row(index, width, low, high) for index in self._shown(height)] if width > 0 else []

    def _shown(self, height: int) -> list[int]:
        """Layers that have a row: all, or an even choice of them."""
        count = len(self._names)
        if count <= height:
            return list(range(count))
        return [int(index) for index in np.linspace(0, count - 1, max(1, height))]

    def _row(self, index: int, width: int, low: float, high: float) -> Strip:
        room = max(4, min(24, width // 3))
        name = " ".join(self._names[index].split())[-(room - 1) :].ljust(room)
        values = self._matrix[index]
        if len(values) > width - room:
            values = values[np.linspace(0, len(values) - 1, width - room).astype(int)]
        span = max(1e-9, np.log(high) - np.log(low))
        colours = heat_colours(self.app.current_theme.dark)
        segments = [Segment(name)]
        for value in values:
            if not np.isfinite(value) or value <= 0:
                segments.append(Segment("?" if not np.isfinite(value) else " "))
                continue
            shade = min(len(RAMP) - 1, int((np.log(value) - np.log(low)) / span * len(RAMP)))
            segments.append(Segment(RAMP[shade], Style.parse(colours[shade])))
        return Strip(segments).simplify().adjust_cell_length(width)
