"""Columns of values to cells: braille (2 × 4 dots a cell), or one ASCII mark a cell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wmdd_tui.plotting.scale import Axis
from wmdd_tui.store.series import Columns

Dots = npt.NDArray[np.bool_]
Characters = npt.NDArray[np.str_]
#: Bit of each dot of a braille cell, by row and column.
BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
FIRST_BRAILLE = 0x2800
MARKS = "*+ox#@"


def draw(columns: Columns, axis: Axis, height: int) -> Dots:
    """Dots (height, width), row 0 at the top: each column from its lowest to its highest value, joined to the next."""
    low, high = axis.place(columns.lo), axis.place(columns.hi)
    dots = np.zeros((height, len(low)), dtype=bool)
    known = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    bottom, top = (np.rint((1 - np.clip(found[known], 0, 1)) * (height - 1)).astype(int) for found in (low, high))
    start, stop = top.copy(), bottom.copy()
    start[1:] = np.minimum(top[1:], bottom[:-1])
    stop[1:] = np.maximum(bottom[1:], top[:-1])
    y = np.arange(height)[:, None]
    dots[:, known] = (start <= y) & (y <= stop)
    return dots


def to_cells(layers: list[Dots], ascii_only: bool) -> tuple[Characters, npt.NDArray[np.int_]]:
    """The character of each cell, and the series (index, -1 for none) that owns it: later ones occlude earlier ones."""
    height, width = layers[0].shape[0] // 4, layers[0].shape[1] // 2
    owner = np.full((height, width), -1)
    code = np.zeros((height, width), dtype=int)
    for index, dots in enumerate(layers):
        cells = dots.reshape(height, 4, width, 2).transpose(0, 2, 1, 3)
        bits = (cells * BRAILLE).sum((2, 3))
        code = np.where(bits > 0, bits, code)
        owner = np.where(bits > 0, index, owner)
    if ascii_only:
        return np.where(owner >= 0, np.array(list(MARKS))[owner % len(MARKS)], " "), owner
    return np.where(code > 0, code + FIRST_BRAILLE, ord(" ")).astype(np.uint32).view("U1"), owner
