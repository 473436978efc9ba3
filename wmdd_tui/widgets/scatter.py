"""Classes in the plane: real images as dots, synthetic images and barycenters as letters."""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from wmdd_tui.plotting.scatter import Cloud, Points, draw
from wmdd_tui.store.embedded import Place, Placed
from wmdd_tui.theme import class_colours, heat_colours
from wmdd_tui.widgets.painted import Painted


def letter_of(index: int) -> str:
    """The small letter of a class; after z they begin again."""
    return string.ascii_lowercase[index % len(string.ascii_lowercase)]


class Scatter(Painted):
    """All classes, each with its letter and colour; or one in front, and the others as faint dots without letters."""

    DEFAULT_CSS = "Scatter { height: 1fr; width: 1fr; min-height: 2; }"

    def __init__(self, ascii: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self._ascii = ascii
        self._placed: Sequence[Placed] = ()
        self._front: int | None = None

    def show(self, classes: Sequence[Placed], front: int | None = None) -> None:
        """Show classes; ``front`` is the index of the one to look at, None for all."""
        self._placed, self._front = classes, front
        self.repaint()

    def rows(self) -> list[Strip]:
        width, height = self.size
        if width < 1 or height < 1 or not self._placed:
            return []
        order = sorted(range(len(self._placed)), key=lambda index: index == self._front)
        clouds = [self._cloud(index) for index in order]
        cells, owner = draw(clouds, height, width, self._ascii)
        styles = [self._style(index) for index in order]
        rows = []
        for characters, owners in zip(cells.tolist(), owner.tolist(), strict=True):
            segments = [
                Segment(character, styles[index] if index >= 0 else None)
                for character, index in zip(characters, owners, strict=True)
            ]
            rows.append(Strip(segments).simplify())
        return rows

    def _cloud(self, index: int) -> Cloud:
        one, letter = self._placed[index], letter_of(index)
        marks = ((letter.upper(), _points(one.barycenter)), (letter, _points(one.images)))
        if self._front is None or self._front == index:
            return Cloud(_points(one.real), marks)
        # Its places stay in the frame, so that nothing moves when another class comes to the front.
        return Cloud(_points([*one.real, *one.images, *one.barycenter]), ())

    def _style(self, index: int) -> Style:
        dark = self.app.current_theme.dark
        if self._front is None or self._front == index:
            colours = class_colours(dark)
            return Style(color=colours[index % len(colours)], bold=self._front == index)
        return Style(color=heat_colours(dark)[0])


def _points(places: Sequence[Place]) -> Points:
    """Places as an array (N, 2)."""
    return np.array(places, dtype=np.float64).reshape(len(places), 2)
