"""Data sets: real images as uint8 on the device, with their classes and a fingerprint.

Kinds: ``digits`` (built in), ``imagefolder``, ``cifar10``/``cifar100``, ``parquet``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import psutil
import torch

from engine.config import DataConfig
from engine.data import cifar, digits, imagefolder, parquet
from engine.data.listing import Listing, Split
from engine.data.pseudo import PseudoFacts, Relabelled, apply_pseudo_labels
from engine.data.reading import decode_all, stream
from engine.data.source import ImageSource, ResidentSource
from engine.errors import DataError, OutOfMemory
from engine.randomness import permutation

__all__ = [
    "Dataset",
    "ImageSource",
    "list_dataset",
    "load_dataset",
    "normalisation",
    "normalise",
    "require_every_class",
]

#: Share of the free memory that decoded images may take before they are streamed.
RESIDENT_SHARE = 0.4
STATISTICS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "digits": ((0.305, 0.305, 0.305), (0.376, 0.376, 0.376)),
}
#: Options of how networks see the same images, part of what these are known by where they are not the usual ones.
SEEN = ("crop", "normalise")
#: Images as they are, 0 to 1.
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Dataset:
    """A data set ready for use. ``class_ids`` are folder names or wnids, ``class_names`` what people read.

    With pseudo-labels, ``outputs`` is how many labels the training images can have, and ``unmatched`` says that these
    are clusters of which no class is known.
    """

    name: str
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    resolution: int
    train: ImageSource
    val: ImageSource
    fingerprint: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    pseudo: PseudoFacts | None = None
    outputs: int = 0
    unmatched: bool = False


def normalise(images_NCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 images to float32 in normalised space."""
    mean_C, std_C = channels_of(mean, images_NCHW.device), channels_of(std, images_NCHW.device)
    return images_NCHW.float().div_(255).sub_(mean_C).div_(std_C)


@cache
def channels_of(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Values of the colour channels (C, 1, 1), copied to the device once."""
    return torch.tensor(values, device=device)[:, None, None]


def load_dataset(
    config: DataConfig,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    warn: Callable[[str], None] = lambda _message: None,
) -> Dataset:
    """List, split and (where it fits) decode a data set. Raises DataError before any work for what is unusable.

    A streamed set's corrupt image is found on its first read: DataError then, or with ``on_corrupt = "skip"``
    another image of its class stands in and ``warn`` is told. ``progress`` may raise to stop. Raises DataVanished,
    OutOfMemory.
    """
    listing, train, val, relabelled = list_dataset(config, seed)
    resident = _fits(config, len(train.items) + len(val.items), device)
    skipped: list[str] = []
    total = len(train.items) + len(val.items)
    sources: list[ImageSource] = []
    done = 0
    for split in (train, val):
        if resident:
            images, kept = decode_all(split, config, partial(_report, progress, done, total))
            left_out = sorted(set(range(len(split.items))).difference(kept))
            skipped += [split.names[index] for index in left_out]
            labels = split.labels_N[torch.tensor(kept, dtype=torch.int64)]
            try:
                sources.append(ResidentSource(images, labels, device))
            except torch.OutOfMemoryError:
                if config.storage == "device" or left_out:
                    raise OutOfMemory(
                        f"{len(images)} images at {config.resolution} px do not fit the device's memory",
                        "set data.storage = 'stream'",
                    ) from None
                warn(f"{len(images)} images do not fit the device's memory; they are decoded whenever they are needed")
                resident = False
        if not resident:
            sources.append(stream(split, config, device, warn))
        done += len(split.items)
    if relabelled is None:
        _require_every_class(sources[0].labels_N, listing, "after unreadable images were left out")
    mean, std = normalisation(config)
    return Dataset(
        name=listing.name,
        class_names=listing.class_names,
        class_ids=listing.class_ids,
        resolution=config.resolution,
        train=sources[0],
        val=sources[1],
        fingerprint=_fingerprint(listing, train, val, config, skipped),
        mean=mean,
        std=std,
        skipped=tuple(skipped),
        warnings=listing.warnings,
        pseudo=relabelled.facts if relabelled else None,
        outputs=relabelled.outputs if relabelled else len(listing.class_ids),
        unmatched=relabelled is not None and relabelled.unmatched,
    )


def normalisation(config: DataConfig) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the channels that images of a data set are normalised by."""
    return PLAIN if config.normalise == "none" else STATISTICS.get(config.dataset, IMAGENET)


def require_every_class(dataset: Dataset) -> None:
    """Raises DataError where pseudo-labels leave a class without an image, which distillation cannot do without."""
    counts = torch.bincount(dataset.train.labels_N, minlength=len(dataset.class_ids))
    empty = [dataset.class_ids[label] for label in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise DataError(
            f"data.pseudo_labels: no image is labelled as class '{empty[0]}' ({len(empty)} such classes)",
            "distillation needs images of every class; set train.images = 'real' to train on them as they are",
        )


def list_dataset(config: DataConfig, seed: int) -> tuple[Listing, Split, Split, Relabelled | None]:
    """A data set's classes, training and validation images, and what its pseudo-labels are; nothing is decoded.

    Raises DataError for what is unusable.
    """
    listing = _list(config)
    train, val = _splits(listing, config, seed)
    relabelled = apply_pseudo_labels(train, val, config, listing.class_ids) if config.pseudo_labels else None
    if relabelled is not None:
        train = relabelled.train
    train, val = (replace(split, share=config.crop) for split in (_most(train, config, seed), val))
    return listing, train, val, relabelled


def _report(progress: Callable[[int, int], None], before: int, total: int, count: int) -> None:
    progress(before + count, total)


def _list(config: DataConfig) -> Listing:
    if config.dataset == "digits":
        return digits.listing()
    if config.dataset == "imagefolder":
        return imagefolder.listing(config.path, bool(config.pseudo_labels))
    if config.dataset == "parquet":
        return parquet.listing(config.path)
    return cifar.listing(config.path, config.dataset)


def _splits(listing: Listing, config: DataConfig, seed: int) -> tuple[Split, Split]:
    """The set's own split, or a stratified one by seed."""
    train, val = listing.train, listing.val
    if not config.pseudo_labels:
        _require_every_class(train.labels_N, listing, "in the training images")
    if val is None:
        held: list[int] = []
        for label in range(len(listing.class_ids)):
            members = (train.labels_N == label).nonzero().flatten()
            order = members[permutation(len(members), seed, "split", label)]
            held += order[: max(1, round(config.val_fraction * len(members)))].tolist()
        kept = sorted(set(range(len(train.items))) - set(held))
        train, val = train.take(kept), train.take(sorted(held))
        _require_every_class(train.labels_N, listing, "after the validation images were held out")
    return train, val


def _most(train: Split, config: DataConfig, seed: int) -> Split:
    """At most ``max_per_class`` training images of each class."""
    if not config.max_per_class:
        return train
    chosen: list[int] = []
    for label in range(int(train.labels_N.max()) + 1):
        members = (train.labels_N == label).nonzero().flatten()
        chosen += members[permutation(len(members), seed, "max-per-class", label)][: config.max_per_class].tolist()
    return train.take(sorted(chosen))


def _require_every_class(labels_N: torch.Tensor, listing: Listing, where: str) -> None:
    counts = torch.bincount(labels_N, minlength=len(listing.class_ids))
    empty = [listing.class_ids[label] for label in (counts == 0).nonzero().flatten().tolist()]
    if empty:
        raise DataError(
            f"{listing.name}: class '{empty[0]}' has no image {where}"
            + (f" (and {len(empty) - 1} more classes)" if len(empty) > 1 else ""),
            "add images to it or remove its folder",
        )


def _fits(config: DataConfig, images: int, device: torch.device) -> bool:
    if config.storage != "auto":
        return config.storage == "device"
    # Each rank of a host holds its own.
    free = psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    return images * 3 * config.resolution**2 < RESIDENT_SHARE * free


def _fingerprint(listing: Listing, train: Split, val: Split, config: DataConfig, skipped: list[str]) -> str:
    seen = {name: value for name, value in config.determinants().items() if name in SEEN}
    digest = hashlib.sha256(f"{config.dataset} {config.resolution} {skipped}{seen or ''}".encode())
    for split in (train, val):
        for name, mark, label in zip(split.names, split.marks, split.labels_N.tolist(), strict=True):
            digest.update(f"{name}\x1f{mark}\x1f{label}\n".encode(errors="surrogateescape"))
    digest.update("\x1f".join(listing.class_ids).encode(errors="surrogateescape"))
    return digest.hexdigest()
