"""A synthetic set that exists already: as many images of each class as the run's IPC, in any of the known layouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.data.listing import Split
from engine.data.reading import read_image
from engine.errors import DataError
from engine.givenset import GivenSet, for_classes, read_given


def given_files(path: str, class_ids: Sequence[str], ipc: int) -> GivenSet:
    """The images of each class, in the data set's order. Raises DataError where classes or counts differ."""
    try:
        return for_classes(read_given(Path(path)), class_ids, ipc)
    except DataError as error:
        raise DataError(f"recover.path: {error.message}", error.remedy) from None


def load_given(path: str, class_ids: Sequence[str], ipc: int, resolution: int) -> torch.Tensor:
    """uint8 images (C × IPC, 3, resolution, resolution), class-major. Raises DataError, DataVanished."""
    return decoded(given_files(path, class_ids, ipc), resolution)


def decoded(given: GivenSet, resolution: int) -> torch.Tensor:
    """All images of a set, class by class (N, 3, resolution, resolution) uint8. Raises DataError, DataVanished."""
    images = [image for one in given.classes for image in one.images]
    split = Split(
        [image.content for image in images],
        [image.name for image in images],
        [""] * len(images),
        torch.zeros(len(images), dtype=torch.int64),
    )
    return torch.stack([read_image(split, resolution, at) for at in range(len(images))])
