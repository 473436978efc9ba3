"""Pictures in half-blocks, two pixels a cell; re-sent only when they change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.cells import set_cell_size
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip

from wmdd_tui.plotting import mosaic
from wmdd_tui.widgets.painted import Painted

if TYPE_CHECKING:
    from PIL import Image

SHADES = " .:-=+*#%@"
OPAQUE = 128


def reason(error: Exception) -> str:
    """Why a file could not be read, without the path, which the caption names."""
    return str(getattr(error, "strerror", None) or type(error).__name__)


class Picture(Painted):
    """One picture, or several in a grid with their names, as large as fits with proportions kept.

    A missing or partial file is said in words. ``shown`` tells how many of several pictures there was room for.
    """

    DEFAULT_CSS = "Picture { height: 1fr; min-height: 2; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._key: object = None
        self._tiles: Sequence[Image.Image] = ()
        self._names: Sequence[str] = ()
        self._paths: Sequence[Path] = ()
        self._words = ""
        self.shown = 0

    # --- what is shown -------------------------------------------------------------------------------------

    def show(self, path: Path) -> None:
        """Show a file; the same unchanged file costs nothing."""
        self.show_files([path])

    def show_files(self, paths: Sequence[Path], names: Sequence[str] = ()) -> None:
        """Show files of one size in a grid; of those there is no room for, only the first is opened."""
        try:
            key = ("files", tuple((path, path.stat().st_mtime_ns) for path in paths), tuple(names), self.size)
            if key == self._key:
                return
            first = mosaic.load(paths[:1])
            room = self._grid(first, len(paths), bool(names))
            tiles = [*first, *mosaic.load(paths[1 : room.shown if room else 1])]
        except (OSError, ValueError, SyntaxError) as error:
            name = f"{paths[0].name} " if len(paths) == 1 else ""
            self._put(None, (), (), f"{name}cannot be shown: {reason(error)}")
        else:
            self._put(key, tiles, names, "")
            self._paths = paths

    def show_row(self, path: Path, names: Sequence[str]) -> None:
        """Show a file of pictures that stand side by side, each with its name, in a grid."""
        try:
            key = ("row", path, path.stat().st_mtime_ns, tuple(names))
            if key == self._key:
                return
            tiles = mosaic.split(mosaic.load([path])[0], len(names))
        except (OSError, ValueError, SyntaxError) as error:
            self._put(None, (), (), f"{path.name} cannot be shown: {reason(error)}")
        else:
            self._put(key, tiles, names if len(tiles) == len(names) else (), "")

    def show_tiles(self, tiles: Sequence[Image.Image], names: Sequence[str] = (), instead: str = "") -> None:
        """Show pictures that were read already, or words where there are none."""
        self._put(None, tiles, names, "" if tiles else instead)

    def _put(self, key: object, tiles: Sequence[Image.Image], names: Sequence[str], words: str) -> None:
        self._key, self._tiles, self._names, self._words, self._paths = key, tiles, names, words, ()
        self.repaint()

    # --- drawing -------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Another size has room for more files or fewer; one that comes back as it was costs nothing."""
        if self._paths:
            self.show_files(self._paths, self._names)

    def _grid(self, tiles: Sequence[Image.Image], count: int, named: bool) -> mosaic.Grid | None:
        size: Size = self.size
        if not tiles:
            return None
        return mosaic.grid_of(count, tiles[0].width / tiles[0].height, size.width, size.height, named)

    def rows(self) -> list[Strip]:
        width, height = self.size
        self.shown = 0
        if width < 1 or height < 1:
            return []
        grid = self._grid(self._tiles, len(self._tiles), bool(self._names))
        if grid is None:
            return [Strip([Segment(self._words[:width])])] if self._words else []
        self.shown = min(len(self._tiles), grid.shown)
        pixels = mosaic.compose(self._tiles, grid)
        line = self._shaded if self._monochrome else self._coloured
        rows = [line(pixels[y], pixels[y + 1]) for y in range(0, len(pixels), 2)]
        if grid.named:
            for first in range(0, self.shown, grid.columns):
                rows[first // grid.columns * grid.pitch + grid.height] = self._named(first, grid)
        return rows[:height]

    @property
    def _monochrome(self) -> bool:
        return bool(self.app.no_color or getattr(getattr(self.app, "settings", None), "ascii", False))

    def _named(self, first: int, grid: mosaic.Grid) -> Strip:
        """The names under one row of tiles."""
        names = [" ".join(str(name).split()) for name in self._names[first : first + grid.columns]]
        cut = [name if len(name) <= grid.width else name[: grid.width - 1] + "…" for name in names]
        return Strip([Segment(set_cell_size(name, grid.width) + " " * mosaic.GAP) for name in cut])

    @staticmethod
    def _coloured(upper: mosaic.Pixels, lower: mosaic.Pixels) -> Strip:
        segments = []
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            colours = [Color.from_rgb(*pixel[:3]) if pixel[3] >= OPAQUE else None for pixel in (above, below)]
            if colours[0] is None and colours[1] is None:
                segments.append(Segment(" "))
            elif colours[0] is None:
                segments.append(Segment("▄", Style(color=colours[1])))
            else:
                segments.append(Segment("▀", Style(color=colours[0], bgcolor=colours[1])))
        return Strip(segments).simplify()

    @staticmethod
    def _shaded(upper: mosaic.Pixels, lower: mosaic.Pixels) -> Strip:
        """Signs by lightness; what is not opaque is empty."""
        light = (upper[:, :3].astype(float).mean(1) + lower[:, :3].mean(1)) / 2 / 256
        seen = (upper[:, 3] >= OPAQUE) | (lower[:, 3] >= OPAQUE)
        text = "".join(
            SHADES[int(value * len(SHADES))] if opaque else " " for value, opaque in zip(light, seen, strict=True)
        )
        return Strip([Segment(text)])
