"""Decoding the images of a split, and what happens to one that cannot be read.

A reading that fails for a moment (a network disk) is tried again. An image that stays unreadable or is corrupt ends
the run with its name, or is left out as ``data.on_corrupt`` says. A folder that is gone is no fault of an image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from engine.config import DataConfig
from engine.data.listing import Split
from engine.data.source import StreamedSource
from engine.errors import DataError, DataVanished
from engine.faults import TRANSIENT

RETRY_SECONDS = (0.1, 0.5, 1.5)
PROGRESS_IMAGES = 64


def read_image(split: Split, size: int, index: int) -> torch.Tensor:
    """uint8 (3, size, size). Raises DataError naming the image, DataVanished where its folder is gone."""
    for seconds in (*RETRY_SECONDS, None):
        try:
            return split.decode(index, size)
        except OSError as error:
            if error.errno in TRANSIENT and seconds is not None:
                time.sleep(seconds)
                continue
            raise _failure(split, index, error) from None
    raise AssertionError("the last try returns or raises")


def _failure(split: Split, index: int, error: OSError) -> DataError | DataVanished:
    item = split.items[index]
    if isinstance(item, Path) and not _is_folder(item.parent):
        return DataVanished(
            f"folder {item.parent} is gone: {split.names[index]} cannot be read ({error.strerror})",
            "mount or restore the data set at the same place, then resume: what was done is kept",
        )
    return DataError(
        f"image {split.names[index]} cannot be read: {error.strerror}",
        "repair or remove it, or set data.on_corrupt = 'skip'",
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a stale network mount
        return False


def decode_all(split: Split, config: DataConfig, progress: Callable[[int], None]) -> tuple[torch.Tensor, list[int]]:
    """All readable images of a split (N, 3, H, W) and their positions in it, decoded in threads.

    ``progress`` is told the number done and may raise to stop. Raises DataError, DataVanished.
    """
    size = config.resolution
    images = torch.empty(len(split.items), 3, size, size, dtype=torch.uint8)
    kept: list[int] = []

    def work(index: int) -> bool:
        try:
            images[index] = read_image(split, size, index)
        except DataError:
            if config.on_corrupt == "error":
                raise
            return False
        return True

    with ThreadPoolExecutor(config.workers) as pool:  # Pillow releases the interpreter lock
        try:
            for index, readable in enumerate(pool.map(work, range(len(split.items)))):
                if readable:
                    kept.append(index)
                if index % PROGRESS_IMAGES == PROGRESS_IMAGES - 1 or index + 1 == len(split.items):
                    progress(index + 1)
        except BaseException:  # Ctrl-C too: it must not wait for images nobody wants any more
            pool.shutdown(cancel_futures=True)
            raise
    return (images if len(kept) == len(images) else images[torch.tensor(kept, dtype=torch.int64)]), kept


def stream(split: Split, config: DataConfig, device: torch.device, warn: Callable[[str], None]) -> StreamedSource:
    """A source that decodes whenever it is asked."""
    decode = partial(_read_or_stand_in, split, config.resolution, {}, warn)
    if config.on_corrupt == "error":
        decode = partial(read_image, split, config.resolution)
    return StreamedSource(decode, split.labels_N, device, config.workers)


def _read_or_stand_in(
    split: Split, size: int, stand_ins: dict[int, int], warn: Callable[[str], None], index: int
) -> torch.Tensor:
    """The image, or for an unreadable one the next readable of its class, always the same. Raises as ``read_image``."""
    try:
        return read_image(split, size, stand_ins.get(index, index))
    except DataError as error:
        members = (split.labels_N == split.labels_N[index]).nonzero().flatten().tolist()
        at = members.index(index)
        for other in members[at + 1 :] + members[:at]:
            try:
                found = read_image(split, size, other)
            except DataError:
                continue
            if index not in stand_ins:
                warn(f"left out unreadable image {split.names[index]}; {split.names[other]} stands in for it")
            stand_ins[index] = other
            return found
        raise error
