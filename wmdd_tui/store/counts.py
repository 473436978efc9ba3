"""The numbers of a run: classes and images of its data set, images and chunks of its synthetic set. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.catalog import DatasetFacts, dataset_facts
from engine.config import DataConfig, RunConfig

#: Images of each class of scikit-learn's digits.
DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
DIGITS_SIDE = 8
CIFAR_SIDE = 32
_counted: dict[tuple[str, str], DatasetFacts] = {}


@dataclass(frozen=True)
class DataCounts:
    """Classes, training and validation images after the split and ``max_per_class``; pixels of an image as stored."""

    classes: int
    train: int
    val: int
    pixels: int


@dataclass(frozen=True)
class SetCounts:
    """Images of the synthetic set, its chunks, images of the largest chunk, optimisation steps of all chunks."""

    images: int
    chunks: int
    chunk_images: int
    iterations: int


def known_facts(kind: str, path: str) -> DatasetFacts:
    """``dataset_facts``, counted once a process, since a large tree takes seconds; again where something was wrong."""
    found = _counted.get((kind, path)) or dataset_facts(kind, path)
    if not found.problem:
        _counted[kind, path] = found
    return found


def data_counts(config: DataConfig, facts: DatasetFacts | None = None) -> DataCounts | None:
    """Counts of a data set; None where it is not there or not usable. ``facts`` spare counting the files again."""
    if config.dataset == "digits":
        held = sum(max(1, round(config.val_fraction * count)) for count in DIGITS)
        return _limited(config, DataCounts(len(DIGITS), sum(DIGITS) - held, held, DIGITS_SIDE**2))
    if config.dataset in ("cifar10", "cifar100"):
        classes = 100 if config.dataset == "cifar100" else 10
        return _limited(config, DataCounts(classes, 50_000, 10_000, CIFAR_SIDE**2))
    found = facts or known_facts(config.dataset, config.path)
    if found.problem or not found.classes or not found.train_images:
        return None
    width, height = found.native_size or (config.resolution, config.resolution)
    train, val = found.train_images, found.val_images
    if not val:
        val = max(found.classes, round(config.val_fraction * train))
        train -= val
    if train < 1:
        return None  # the split leaves nothing to train on; the engine says so in its own words
    return _limited(config, DataCounts(found.classes, train, val, width * height))


def _limited(config: DataConfig, counts: DataCounts) -> DataCounts:
    if not config.max_per_class:
        return counts
    most = min(counts.train, config.max_per_class * counts.classes)
    return DataCounts(counts.classes, most, counts.val, counts.pixels)


def set_counts(config: RunConfig, classes: int) -> SetCounts:
    """Counts of the synthetic set; a class larger than a chunk forms a chunk of its own."""
    batch, ipc = config.recover.batch_size, config.ipc
    if config.recover.chunk == "per-class":
        together = max(1, batch // ipc)
        chunks, largest = math.ceil(classes / together), min(together, classes) * ipc
    else:
        chunks, largest = math.ceil(classes / batch) * ipc, min(batch, classes)
    optimised = config.recover.objective in ("wmdd", "sre2l")
    return SetCounts(classes * ipc, chunks, largest, chunks * config.recover.iterations if optimised else 0)
