"""A line chart that sends only what changed: rows are rendered as strips and compared with those on screen."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from wmdd_tui.plotting.raster import MARKS, Characters, draw, to_cells
from wmdd_tui.plotting.scale import Axis, Kind, LogRefused, label, settle
from wmdd_tui.store.series import Columns, Series
from wmdd_tui.theme import SIGNS, series_colours
from wmdd_tui.widgets.painted import Painted

LABEL_WIDTH = 8
#: A curve carries its sign in every so many columns, so that no curve is known by its colour alone.
SIGN_EVERY = 16
SMOOTHING = 0.85


@dataclass(frozen=True)
class Curves:
    """What a chart shows: named series over 0..total.

    ``boundaries`` are positions of vertical lines (chunks), ``step`` the units of one value of the series, ``slots``
    the sign and colour of each series (by default its place), ``empty`` what is said where there is no value.
    """

    series: tuple[tuple[str, Series], ...]
    total: int
    unit: str = "iterations"
    boundaries: tuple[float, ...] = ()
    step: float = 1.0
    slots: tuple[int, ...] = ()
    empty: str = "no values yet"

    def slot(self, index: int) -> int:
        return self.slots[index] if index < len(self.slots) else index


class LossChart(Painted):
    """Curves on fixed axes. ``show`` hands it new data; keys are the screen's affair."""

    DEFAULT_CSS = "LossChart { height: 1fr; min-height: 4; }"

    def __init__(self, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self._ascii = ascii
        self._curves = Curves((), 1)
        self._kind: Kind = "linear"
        self._smooth = False
        self._window: tuple[float, float] | None = None
        self._cursor: int | None = None
        self._axis: Axis | None = None
        self._refused = ""

    # --- what the screen asks ------------------------------------------------------------------------------

    def show(self, curves: Curves) -> None:
        """Show new data."""
        self._curves = curves
        self.repaint()

    def cycle_scale(self) -> None:
        """Linear to logarithmic and back."""
        self._kind, self._axis = ("log" if self._kind == "linear" else "linear"), None
        self.repaint()

    def toggle_smooth(self) -> None:
        """Smoothed means in place of minimum and maximum."""
        self._smooth, self._axis = not self._smooth, None
        self.repaint()

    def zoom(self, factor: float) -> None:
        """Show ``1 / factor`` of what is shown, about its centre; never more than all."""
        start, stop = self._span()
        centre, half = (start + stop) / 2, (stop - start) / 2 / factor
        if 2 * half >= self._curves.total:
            self.reset()
            return
        self._window = self._inside(centre - max(half, 4), centre + max(half, 4))
        self._axis = None
        self.repaint()

    def pan(self, share: float) -> None:
        """Move by a share of what is shown."""
        start, stop = self._span()
        step = (stop - start) * share
        if self._window is not None:
            self._window = self._inside(start + step, stop + step)
            self.repaint()

    def reset(self) -> None:
        """Show everything."""
        self._window = self._cursor = self._axis = None
        self.repaint()

    def move_cursor(self, step: int) -> None:
        """Move the read-out by columns."""
        width = max(1, self.size.width - LABEL_WIDTH)
        self._cursor = max(0, min(width - 1, (width // 2 if self._cursor is None else self._cursor) + step))
        self.repaint()

    # --- drawing -------------------------------------------------------------------------------------------

    def _span(self) -> tuple[float, float]:
        return self._window or (0.0, float(max(1, self._curves.total)))

    def _inside(self, start: float, stop: float) -> tuple[float, float]:
        width = min(stop - start, float(self._curves.total))
        start = max(0.0, min(start, self._curves.total - width))
        return start, start + width

    def rows(self) -> list[Strip]:
        width, height = self.size
        return self._drawn(width, height) if width > LABEL_WIDTH and height >= 3 else []

    def _columns(self, dots: int) -> list[Columns]:
        start, stop = self._span()
        found = [series.window(start, stop, dots) for _, series in self._curves.series]
        return [smoothed(columns) for columns in found] if self._smooth else found

    def _settle(self, columns: list[Columns]) -> Axis | None:
        lows = np.concatenate([one.lo for one in columns]) if columns else np.array([])
        highs = np.concatenate([one.hi for one in columns]) if columns else np.array([])
        finite = np.isfinite(lows) & np.isfinite(highs)
        self._refused = ""
        if not finite.any():
            return None
        if self._kind == "log":
            finite &= lows > 0
            if not finite.any():
                self._refused = "no positive values for a log axis: y"
                return None
        try:
            self._axis = settle(self._axis, float(lows[finite].min()), float(highs[finite].max()), self._kind)
        except LogRefused as refusal:
            self._refused = str(refusal)
            return None
        return self._axis

    def _drawn(self, width: int, height: int) -> list[Strip]:
        plot_width, plot_height = width - LABEL_WIDTH, height - 2
        columns = self._columns(plot_width * 2)
        axis = self._settle(columns)
        if axis is None:
            text = self._refused or self._curves.empty
            return [Strip([Segment(text[:width].ljust(width))]), *[Strip.blank(width) for _ in range(height - 1)]]
        cells, owner = to_cells([draw(one, axis, plot_height * 4) for one in columns], self._ascii)
        self._put_signs(cells, owner)
        colours = series_colours(self.app.current_theme.dark)
        styles = [Style.parse(colours[self._curves.slot(i) % len(colours)]) for i in range(len(columns))]
        for x, line in self._verticals(plot_width).items():
            cells[cells[:, x] == " ", x] = line
        rows = [self._legend(width, columns, styles)]
        for y in range(plot_height):
            text = "".join(cells[y].tolist())
            segments = [Segment(self._y_label(axis, y, plot_height))]
            edges = [0, *(np.flatnonzero(np.diff(owner[y])) + 1).tolist(), plot_width]
            for start, stop in itertools.pairwise(edges):
                series = owner[y, start]
                segments.append(Segment(text[start:stop], styles[series] if series >= 0 else None))
            rows.append(Strip(segments))
        rows.append(self._x_labels(width))
        return rows

    def _legend(self, width: int, columns: list[Columns], styles: list[Style]) -> Strip:
        segments: list[Segment] = []
        for index, (name, series) in enumerate(self._curves.series):
            value = series.last
            if self._cursor is not None:
                value = float(columns[index].mean[min(self._cursor * 2, len(columns[index].mean) - 1)])
            shown = "" if value is None else f" {value:.4g}"
            segments.append(Segment(f"{self._sign(index)} {' '.join(name.split())}{shown}  ", styles[index]))
        return Strip(segments).adjust_cell_length(width)

    def _sign(self, index: int) -> str:
        marks = MARKS if self._ascii else SIGNS
        return marks[self._curves.slot(index) % len(marks)]

    def _put_signs(self, cells: Characters, owner: npt.NDArray[np.int_]) -> None:
        """Let some cells show their series' sign in place of its dots; in ASCII every cell does."""
        count = len(self._curves.series)
        if count < 2 and not self._ascii:
            return
        for index in range(count):
            if self._ascii:
                cells[owner == index] = self._sign(index)
                continue
            for x in range(SIGN_EVERY * (index + 1) // (count + 1), owner.shape[1], SIGN_EVERY):
                rows = np.flatnonzero(owner[:, x] == index)
                if len(rows):
                    cells[rows[len(rows) // 2], x] = self._sign(index)

    def _verticals(self, width: int) -> dict[int, str]:
        """Columns with a line: the boundaries that have room of their own, and the cursor."""
        start, stop = self._span()
        inside = [(place - start) / (stop - start) * width for place in self._curves.boundaries]
        columns = sorted({int(x) for x in inside if 0 < x < width})
        if len(columns) > width // 3:
            columns = []
        found = dict.fromkeys(columns, ":" if self._ascii else "┊")
        if self._cursor is not None:
            found[self._cursor] = "|" if self._ascii else "│"
        return found

    def _y_label(self, axis: Axis, row: int, height: int) -> str:
        if row not in (0, height // 2, height - 1):
            return " " * LABEL_WIDTH
        share = 1 - row / max(1, height - 1)
        value = axis.lo + share * (axis.hi - axis.lo)
        if axis.kind == "log":
            value = axis.lo * (axis.hi / axis.lo) ** share
        return f"{label(value):>{LABEL_WIDTH - 1}} "

    def _x_labels(self, width: int) -> Strip:
        """First and last position, and between them the scale and where the cursor stands."""
        start, stop = (place * self._curves.step for place in self._span())
        # Iterations are counted from 0, epochs from 1: the edge after epoch 120 is no epoch 121.
        last = stop - self._curves.step * (self._curves.unit == "epochs")
        left, right = f"{start:.0f}", f"{last:.0f} {self._curves.unit}"
        notes = [self._kind, *(["smoothed"] if self._smooth else [])]
        if self._cursor is not None:
            place = start + (stop - start) * (self._cursor + 0.5) / (width - LABEL_WIDTH)
            notes.append(f"at {place:.0f}")
        room = width - LABEL_WIDTH - len(left) - len(right)
        text = " " * LABEL_WIDTH + left + ", ".join(notes)[: max(0, room - 2)].center(max(1, room)) + right
        return Strip([Segment(text[:width].ljust(width))])


def smoothed(columns: Columns) -> Columns:
    """An exponential mean over the columns; gaps stay gaps."""
    found = np.full_like(columns.mean, np.nan)
    value = np.nan
    for index, mean in enumerate(columns.mean):
        if np.isfinite(mean):
            value = mean if np.isnan(value) else SMOOTHING * value + (1 - SMOOTHING) * mean
            found[index] = value
    return Columns(found, found, found)
