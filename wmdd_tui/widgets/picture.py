"""A picture in half-blocks, two pixels a cell; re-sent only when it changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

SHADES = " .:-=+*#%@"


GAP = 1


def reason(error: Exception) -> str:
    """Why a file could not be read, without the path, which the caption names."""
    return str(getattr(error, "strerror", None) or type(error).__name__)


def sheet_of(paths: Sequence[Path], width: int, height: int) -> Image.Image | None:
    """Pictures in a grid for a space of ``width`` × ``height`` pixels; None without pictures. Raises OSError."""
    tiles = []
    for path in paths:
        with Image.open(path) as file:
            tiles.append(file.convert("RGB"))
    if not tiles:
        return None
    side_x, side_y = max(tile.width for tile in tiles), max(tile.height for tile in tiles)

    def scale(columns: int) -> float:
        rows = math.ceil(len(tiles) / columns)
        return min(width / (columns * (side_x + GAP)), height / (rows * (side_y + GAP)))

    columns = max(range(1, len(tiles) + 1), key=scale)
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * (side_x + GAP) - GAP, rows * (side_y + GAP) - GAP))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * (side_x + GAP), index // columns * (side_y + GAP)))
    return sheet


class Picture(Widget):
    """A picture file, as large as fits with its proportions kept. A missing or partial file is said in words."""

    DEFAULT_CSS = "Picture { height: 1fr; min-height: 2; }"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._key: tuple[object, ...] | None = None
        self._source: Image.Image | None = None
        self._words = ""
        self._rows: list[Strip] = []

    def show(self, path: Path, caption: str) -> None:
        """Show a file; the same unchanged file costs nothing."""
        try:
            key = (path, path.stat().st_mtime_ns, caption)
            if key == self._key:
                return
            with Image.open(path) as file:
                self._source = file.convert("RGB")
            self._words, self._key = caption, key
        except (OSError, ValueError, SyntaxError) as error:
            self._source, self._words, self._key = None, f"{path.name} cannot be shown: {reason(error)}", None
        self._draw()
        self.refresh()

    def show_grid(self, paths: Sequence[Path]) -> None:
        """Show several files of one size beside and below each other, in as many columns as fill the widget best."""
        key = (tuple(paths), self.size)
        if key == self._key:
            return
        try:
            self._source, self._words = sheet_of(paths, self.size.width, 2 * self.size.height), ""
            self._key = key
        except (OSError, ValueError, SyntaxError) as error:
            self._source, self._words, self._key = None, f"cannot be shown: {reason(error)}", None
        self._draw()
        self.refresh()

    def on_resize(self) -> None:
        self._draw()
        self.refresh()

    def _draw(self) -> None:
        width, height = self.size
        if width < 1 or height < 1:
            return
        words = [Strip([Segment(self._words[:width])])] if self._words else []
        if self._source is None:
            self._rows = words
            return
        rows = max(1, height - len(words))
        scale = min(width / self._source.width, 2 * rows / self._source.height)
        size = (max(1, int(self._source.width * scale)), max(2, int(self._source.height * scale) // 2 * 2))
        method = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
        pixels = np.asarray(self._source.resize(size, method))
        monochrome = self.app.no_color or getattr(getattr(self.app, "settings", None), "ascii", False)
        line = self._shaded if monochrome else self._coloured
        self._rows = [*words, *[line(pixels[y], pixels[y + 1]) for y in range(0, len(pixels) - 1, 2)]]

    @staticmethod
    def _coloured(upper: np.ndarray, lower: np.ndarray) -> Strip:
        segments = []
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            segments.append(Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below))))
        return Strip(segments).simplify()

    @staticmethod
    def _shaded(upper: np.ndarray, lower: np.ndarray) -> Strip:
        light = (upper.astype(float).mean(1) + lower.mean(1)) / 2 / 256
        return Strip([Segment("".join(SHADES[int(value * len(SHADES))] for value in light))])

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        return self._rows[y].adjust_cell_length(width) if y < len(self._rows) else Strip.blank(width)
