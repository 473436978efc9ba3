"""The finished images of a run, by class. Folders are listed when a class is looked at, not before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
