"""Several pictures in a space of cells: how many columns, at what size, and the pixels of the whole.

A cell shows two pixels, one above the other. Pure functions over Pillow's images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Pillow and numpy are imported where pictures are drawn: the first screen shows none yet, and must not wait for them.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Pixels = npt.NDArray[np.uint8]

#: Cells between two tiles.
GAP = 1
#: A picture of fewer pixels across shows nothing one would recognise; rather than that, fewer are shown.
LEAST_SIDE = 10


@dataclass(frozen=True)
class Grid:
    """How tiles stand: ``columns`` × ``rows`` of them, each of ``width`` × ``height`` cells and a row for its name."""

    columns: int
    rows: int
    width: int
    height: int
    named: bool

    @property
    def shown(self) -> int:
        """The tiles there is room for."""
        return self.columns * self.rows

    @property
    def pitch(self) -> int:
        """Rows of cells from one row of tiles to the next; the name stands between them, or nothing."""
        return self.height + GAP

    def place(self, index: int) -> tuple[int, int]:
        """The cell of a tile's upper left corner."""
        return index % self.columns * (self.width + GAP), index // self.columns * self.pitch


def grid_of(count: int, aspect: float, width: int, height: int, named: bool = False) -> Grid | None:
    """The grid whose tiles are largest for ``count`` pictures of one aspect (width over height) in a space of cells.

    Where not all have room at ``LEAST_SIDE`` pixels, the grid is for fewer. None where not one has a place.
    """
    spare = 0 if named else GAP  # under the last row of tiles there is a name, or nothing

    def fitted(columns: int, tiles: int) -> Grid | None:
        rows = math.ceil(tiles / columns)
        most = (height + spare) // rows - GAP
        across = min((width + GAP) // columns - GAP, int(2 * most * aspect + 1e-6))
        down = min(most, math.ceil(across / aspect / 2))
        return Grid(columns, rows, across, down, named) if across > 0 and down > 0 else None

    if count < 1 or width < 1 or height < 1:
        return None
    for tiles in (count, *_fewer(count, aspect, width, height + spare)):
        grids = [grid for columns in range(1, min(tiles, width) + 1) if (grid := fitted(columns, tiles))]
        best = max(grids, key=lambda grid: (grid.width, -grid.rows), default=None)
        if best is not None and (min(best.width, 2 * best.height) >= LEAST_SIDE or tiles == 1):
            return best
    return None


def _fewer(count: int, aspect: float, width: int, height: int) -> list[int]:
    """Numbers of tiles to try next: what fits at the least size, then one."""
    across = math.ceil(LEAST_SIDE * max(1.0, aspect))
    down = math.ceil(LEAST_SIDE * max(1.0, 1 / aspect) / 2)
    fits = (width + GAP) // (across + GAP) * (height // (down + GAP))
    return [*([fits] if 1 < fits < count else []), 1]


def compose(tiles: Sequence[Image.Image], grid: Grid) -> Pixels:
    """The pixels (2·rows, columns, RGBA) of as many tiles as the grid shows; between them nothing is opaque."""
    import numpy as np
    from PIL import Image

    shown = tiles[: grid.shown]
    rows = math.ceil(len(shown) / grid.columns)
    sheet = Image.new("RGBA", (grid.columns * (grid.width + GAP) - GAP, 2 * rows * grid.pitch))
    for index, tile in enumerate(shown):
        x, y = grid.place(index)
        sheet.paste(fitted_into(tile, grid.width, 2 * grid.height), (x, 2 * y))
    return np.asarray(sheet)


def fitted_into(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as fits into some pixels with its proportions kept; its own pixels stay squares."""
    from PIL import Image

    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    return picture.convert("RGBA").resize(size, method)


def load(paths: Sequence[Path]) -> list[Image.Image]:
    """Pictures of files, in order. Raises OSError, ValueError or SyntaxError, as Pillow does."""
    from PIL import Image

    found = []
    for path in paths:
        with Image.open(path) as file:
            found.append(file.convert("RGB"))
    return found


def split(row: Image.Image, count: int) -> list[Image.Image]:
    """The pictures that stand side by side in one; the one itself where it cannot be that many of one size."""
    if count < 1 or row.width % count:
        return [row]
    side = row.width // count
    return [row.crop((index * side, 0, (index + 1) * side, row.height)) for index in range(count)]
