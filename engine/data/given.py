"""A synthetic set that exists already: an ImageFolder tree of as many images of each class as the run's IPC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.catalog import IMAGE_SUFFIXES, class_folders, natural_key
from engine.data.listing import Split
from engine.data.reading import read_image
from engine.errors import DataError


def class_files(path: str, class_ids: Sequence[str], ipc: int) -> list[list[Path]]:
    """The image files of each class, in name order.

    Folders are matched by class id; where none has such a name they are taken in order, which is how published
    sets (``new000`` …, ``00000`` …) are written. Raises DataError where classes or counts differ.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(
            f"recover.path = '{path}' is no folder", "name an ImageFolder tree of synthetic images: <class>/<image>"
        )
    folders = class_folders(root)
    by_name = {folder.name: folder for folder in folders}
    known = [class_id for class_id in class_ids if class_id in by_name]
    if known and len(known) < len(class_ids):
        missing = next(class_id for class_id in class_ids if class_id not in by_name)
        raise DataError(f"recover.path = '{path}' has no folder of class '{missing}'", "add it, or take another set")
    if not known and len(folders) != len(class_ids):
        raise DataError(
            f"recover.path = '{path}' has {len(folders)} class folders, the data set has {len(class_ids)} classes",
            "take a set distilled from this data set",
        )
    ordered = [by_name[class_id] for class_id in class_ids] if known else folders
    files = [_images(folder) for folder in ordered]
    for folder, found in zip(ordered, files, strict=True):
        if len(found) != ipc:
            raise DataError(
                f"recover.path: {folder} holds {len(found)} images, ipc is {ipc}", f"set ipc = {len(found) or 1}"
            )
    return files


def _images(folder: Path) -> list[Path]:
    found = [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    return sorted(found, key=lambda entry: natural_key(entry.stem))


def load_given(path: str, class_ids: Sequence[str], ipc: int, resolution: int) -> torch.Tensor:
    """uint8 images (C × IPC, 3, resolution, resolution), class-major. Raises DataError, DataVanished."""
    files = [file for group in class_files(path, class_ids, ipc) for file in group]
    split = Split(files, [str(file) for file in files], [""] * len(files), torch.zeros(len(files), dtype=torch.int64))
    return torch.stack([read_image(split, resolution, index) for index in range(len(files))])
