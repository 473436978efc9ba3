"""One metric over iterations, at bounded memory: blocks of minimum, maximum and mean that double as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wmdd_tui.quantities import LARGEST

Array = npt.NDArray[np.float64]
CAPACITY = 8192


@dataclass(frozen=True)
class Columns:
    """Lowest, highest and mean value of each column of a chart; NaN where there is none."""

    lo: Array
    hi: Array
    mean: Array


class Series:
    """Values at 0, 1, 2, …; re-sent ones (after a resume) replace their block's share by widening its range.

    At most ``CAPACITY`` blocks are kept: when full, pairs are merged, so a million values take the memory of 8192.
    Values that are not finite, or beyond ``LARGEST``, are gaps; ``nonfinite`` counts them.
    """

    def __init__(self) -> None:
        self._width = 1
        self._lo = np.full(CAPACITY, np.nan)
        self._hi = np.full(CAPACITY, np.nan)
        self._sum = np.zeros(CAPACITY)
        self._count = np.zeros(CAPACITY)
        self.end = 0
        self.last: float | None = None
        self.nonfinite = 0

    def extend(self, first: int, values: Sequence[float] | Array) -> None:
        """Add values at ``first``, ``first + 1``, …"""
        if not len(values) or first < 0:
            return
        found = np.asarray(values, dtype=np.float64)
        self.last = float(found[-1])
        self.end = max(self.end, first + len(found))
        while self.end > CAPACITY * self._width:
            self._halve()
        finite = np.abs(found) <= LARGEST
        self.nonfinite += int(len(found) - finite.sum())
        found = np.where(finite, found, np.nan)
        # The values are consecutive, so each block's share is one piece of them.
        block = (first + np.arange(len(found))) // self._width
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        lo, hi = np.fmin.reduceat(found, starts), np.fmax.reduceat(found, starts)
        total = np.add.reduceat(np.where(finite, found, 0.0), starts)
        count = np.add.reduceat(finite, starts, dtype=np.float64)
        at = slice(int(block[0]), int(block[-1]) + 1)
        if self._width > 1:
            lo, hi = np.fmin(self._lo[at], lo), np.fmax(self._hi[at], hi)
            total, count = self._sum[at] + total, self._count[at] + count
        self._lo[at], self._hi[at], self._sum[at], self._count[at] = lo, hi, total, count

    def _halve(self) -> None:
        half = CAPACITY // 2
        for name, merge in (("_lo", np.fmin), ("_hi", np.fmax), ("_sum", np.add), ("_count", np.add)):
            old = getattr(self, name)
            empty = np.nan if name in ("_lo", "_hi") else 0.0
            setattr(self, name, np.concatenate([merge(old[0::2], old[1::2]), np.full(half, empty)]))
        self._width *= 2

    def window(self, start: float, stop: float, columns: int) -> Columns:
        """The values of [start, stop) in equal columns. A column narrower than a block shows its block's value."""
        used = -(-self.end // self._width)
        lo, hi = np.full(columns, np.nan), np.full(columns, np.nan)
        total, count = np.zeros(columns), np.zeros(columns)
        blocks = np.flatnonzero(self._count[:used] > 0)
        step = (stop - start) / columns
        if step < self._width:
            return self._stretched(start, step, columns, used)
        column = np.floor((blocks * self._width - start) / step).astype(int)
        inside = (column >= 0) & (column < columns)
        blocks, column = blocks[inside], column[inside]
        if not len(blocks):
            return Columns(lo, hi, lo)
        # Blocks are in order, so each column's are one piece of them.
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        at = column[starts]
        lo[at], hi[at] = np.fmin.reduceat(self._lo[blocks], starts), np.fmax.reduceat(self._hi[blocks], starts)
        total[at] = np.add.reduceat(self._sum[blocks], starts)
        count[at] = np.add.reduceat(self._count[blocks], starts)
        mean = np.divide(total, count, out=np.full(columns, np.nan), where=count > 0)
        return Columns(lo, hi, mean)

    def _stretched(self, start: float, step: float, columns: int, used: int) -> Columns:
        """Columns narrower than a block: each shows the block it lies in, so that few values leave no gaps."""
        block = ((start + (np.arange(columns) + 0.5) * step) // self._width).astype(int)
        inside = (block >= 0) & (block < used)
        block = np.where(inside, block, 0)
        inside &= self._count[block] > 0
        mean = self._sum[block] / np.maximum(self._count[block], 1)
        return Columns(*(np.where(inside, found, np.nan) for found in (self._lo[block], self._hi[block], mean)))
