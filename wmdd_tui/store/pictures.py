"""The finished images of a run, by class. Folders are listed when a class is looked at, not before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.rundir import RunDir
from wmdd_tui.plotting import mosaic

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class FinishedClass:
    """A folder of finished images. ``label`` is -1 where the file names tell none."""

    id: str
    label: int
    folder: Path

    def files(self) -> list[Path]:
        """The images, in order; empty when the folder has gone."""
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == ".png" and path.name[0] != ".")
        except OSError:
            return []


def finished_classes(images: Path) -> list[FinishedClass]:
    """Classes that have images, ordered by label."""
    try:
        folders = [folder for folder in images.iterdir() if folder.is_dir()]
    except OSError:
        return []
    found = []
    for folder in folders:
        first = next((path.name for path in folder.glob("class*.png")), None)
        if first is not None:
            digits = first.removeprefix("class").split("_")[0]
            found.append(FinishedClass(folder.name, int(digits) if digits.isdigit() else -1, folder))
    return sorted(found, key=lambda one: (one.label, one.id))


def one_of_each(images: Path, ordinal: int, most: int) -> list[tuple[FinishedClass, Path]]:
    """The image of a number of each of the first classes; the last one of a class that has fewer."""
    found = []
    for one in finished_classes(images)[:most]:
        if files := one.files():
            found.append((one, files[min(ordinal, len(files) - 1)]))
    return found


def thumbnails(run: RunDir, most: int) -> list[Image.Image]:
    """A finished image of each of the first classes, or the newest live ones; empty where none can be read."""
    paths = [path for _, path in one_of_each(run.images, 0, most)]
    try:
        if paths:
            return mosaic.load(paths)
        newest = max(run.previews.glob("*.png"), key=lambda path: path.name, default=None)
        if newest is None:
            return []
        (row,) = mosaic.load([newest])
        return mosaic.split(row, max(1, row.width // row.height))[:most]
    except (OSError, ValueError, SyntaxError):
        return []
