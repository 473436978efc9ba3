"""Points in the plane to cells: clouds of dots, and single points as letters over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wmdd_tui.plotting.raster import Characters, Dots, to_cells

Points = npt.NDArray[np.float64]
#: What a cell with dots of a cloud shows in ASCII, where letters stand for single points.
ASCII_DOT = "."
MARGIN = 0.03


@dataclass(frozen=True)
class Cloud:
    """Points (N, 2) of one colour, and single points that are marked by letters."""

    dots_N2: Points
    marks: Sequence[tuple[str, Points]]


@dataclass(frozen=True)
class Frame:
    """The part of the plane that is shown: lowest and highest x and y."""

    low_2: Points
    high_2: Points

    def cells(self, points_N2: Points, height: int, width: int) -> npt.NDArray[np.int_]:
        """Row (0 at the top) and column of each point on a grid of so many rows and columns."""
        share_N2 = (points_N2 - self.low_2) / (self.high_2 - self.low_2)
        columns = np.clip(share_N2[:, 0] * width, 0, width - 1)
        rows = np.clip((1 - share_N2[:, 1]) * height, 0, height - 1)
        return np.stack([rows, columns], axis=1).astype(int)


def frame_of(clouds: Sequence[Cloud]) -> Frame:
    """The frame that holds all points with a small margin; points all in one place stand in its middle."""
    everything = np.concatenate(
        [part for cloud in clouds for part in (cloud.dots_N2, *(mark for _, mark in cloud.marks))]
    )
    low, high = everything.min(axis=0), everything.max(axis=0)
    margin = np.where(high > low, (high - low) * MARGIN, 0.5)
    return Frame(low - margin, high + margin)


def draw(clouds: Sequence[Cloud], height: int, width: int, ascii_only: bool) -> tuple[Characters, npt.NDArray[np.int_]]:
    """The character of each cell (height, width), and the cloud (index, -1 for none) that owns it.

    Braille dots for clouds, later ones over earlier ones; letters over all of them.
    """
    frame = frame_of(clouds)
    layers: list[Dots] = []
    for cloud in clouds:
        dots = np.zeros((4 * height, 2 * width), dtype=bool)
        places = frame.cells(cloud.dots_N2, *dots.shape)
        dots[places[:, 0], places[:, 1]] = True
        layers.append(dots)
    cells, owner = to_cells(layers, ascii_only)
    if ascii_only:
        cells = np.where(owner >= 0, ASCII_DOT, cells)
    for index, cloud in enumerate(clouds):
        for letter, points_M2 in cloud.marks:
            places = frame.cells(points_M2, height, width)
            cells[places[:, 0], places[:, 1]] = letter
            owner[places[:, 0], places[:, 1]] = index
    return cells, owner
