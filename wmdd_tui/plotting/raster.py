"""Columns of values to cells: braille (2 × 4 dots a cell), or one ASCII mark a cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wmdd_tui.plotting.scale import Axis
from wmdd_tui.store.series import Columns

Dots = npt.NDArray[np.bool_]
#: Bit of each dot of a braille cell, by row and column.
BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
MARKS = "*+ox#@"


def draw(columns: Columns, axis: Axis, height: int) -> Dots:
    """Dots (height, width), row 0 at the top: each column from its lowest to its highest value, joined to the next."""
    low, high = axis.place(columns.lo), axis.place(columns.hi)
    dots = np.zeros((height, len(low)), dtype=bool)
    previous: tuple[int, int] | None = None
    for x in range(len(low)):
        if not (np.isfinite(low[x]) and np.isfinite(high[x])):
            continue
        bottom, top = (round((1 - min(1.0, max(0.0, float(v)))) * (height - 1)) for v in (low[x], high[x]))
        start, stop = top, bottom
        if previous is not None:
            start, stop = min(start, previous[1]), max(stop, previous[0])
        dots[start : stop + 1, x] = True
        previous = (top, bottom)
    return dots


def to_cells(layers: list[Dots], ascii_only: bool) -> tuple[list[str], npt.NDArray[np.int_]]:
    """Rows of characters, and the series (index, -1 for none) that owns each cell: later ones occlude earlier ones."""
    height, width = layers[0].shape[0] // 4, layers[0].shape[1] // 2
    owner = np.full((height, width), -1)
    code = np.zeros((height, width), dtype=int)
    for index, dots in enumerate(layers):
        cells = dots.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
        bits = (cells * BRAILLE).sum((2, 3))
        code = np.where(bits > 0, bits, code)
        owner = np.where(bits > 0, index, owner)
    if ascii_only:
        rows = ["".join(MARKS[o % len(MARKS)] if o >= 0 else " " for o in line) for line in owner]
    else:
        rows = ["".join(chr(0x2800 + bits) if bits else " " for bits in line) for line in code]
    return rows, owner
