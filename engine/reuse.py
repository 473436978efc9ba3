"""Stage outputs that need not be made again: from the run directory (a resumed run) or the cache (an earlier run).

Small outputs are checkpoint files read whole. Features, which grow with the number of images, are a NumPy file
that is memory-mapped.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.artifacts import Cache, link_or_copy
from engine.checkpoints import DAMAGE, Loaded, pack, read
from engine.context import Context
from engine.rundir import sync_rename, write_whole

HASH_BYTES = 16 << 20


def recall(ctx: Context, cache: Cache, kind: str, key: str, alike: str = "") -> tuple[Loaded | None, bool]:
    """An output from the run directory or the cache, and whether it came from the cache; damaged ones are said.

    The run's own is taken too where it was remembered as ``alike``: made by another number of ranks, say.
    """
    own = ctx.run.checkpoints / f"{kind}.ckpt"
    for path in (own, cache.find(kind, key)):
        if path is None or not path.is_file():
            continue
        try:
            loaded = read(path)
        except DAMAGE as error:
            ctx.warn(f"{path.name} is damaged ({error}) and is made again")
            continue
        if loaded.state.get("key") == key or (path == own and alike and loaded.state.get("alike") == alike):
            if path != own:
                write_whole(own, pack(loaded.tensors, loaded.state))
            return loaded, path != own
    return None, False


def remember(ctx: Context, cache: Cache, kind: str, key: str, tensors: dict[str, torch.Tensor], **state: Any) -> None:
    """Keep an output in the run directory and the cache. A cache that cannot be written is said, no more."""
    data = pack(tensors, {**state, "key": key})
    write_whole(ctx.run.checkpoints / f"{kind}.ckpt", data)
    try:
        cache.keep(kind, key, data)
    except OSError as error:
        ctx.warn(f"{kind} is not cached for later runs: {error}")


class FeatureFile:
    """Features (N, D) float32 in ``checkpoints/features.npy``, written and read through a memory map."""

    def __init__(self, ctx: Context, cache: Cache, key: str) -> None:
        self._ctx, self._cache, self._key = ctx, cache, key
        self.path = ctx.run.checkpoints / "features.npy"
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._map: np.memmap[Any, Any] | None = None

    def allocate(self, count: int, size: int) -> torch.Tensor:
        """A zeroed tensor (count, size) on disk, under a temporary name until ``commit``. Raises OSError.

        Its blocks are reserved at once: a full disk is an error here, where it would be a SIGBUS later.
        """
        self._map = np.lib.format.open_memmap(self._partial, mode="w+", dtype=np.float32, shape=(count, size))
        with self._partial.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, self._partial.stat().st_size)
        return torch.from_numpy(self._map)

    def reopen(self, count: int, size: int) -> torch.Tensor | None:
        """What a broken-off pass had written under the temporary name; None where it is not of this shape."""
        try:
            found = np.lib.format.open_memmap(self._partial, mode="r+")
        except (OSError, ValueError):
            return None
        if found.shape != (count, size) or found.dtype != np.float32:
            return None
        self._map = found
        return torch.from_numpy(found)

    def flush(self) -> None:
        """Put what was written so far onto the disk. Raises OSError."""
        if self._map is not None:
            self._map.flush()

    def commit(self) -> str:
        """Give the file its name, keep it in the cache, and return the SHA-256 of its content."""
        self.flush()
        sync_rename(self._partial, self.path)
        try:
            self._cache.keep_file("features", self._key, self.path)
        except OSError as error:
            self._ctx.warn(f"features are not cached for later runs: {error}")
        return file_sha256(self.path)

    def open(self, sha256: str) -> torch.Tensor | None:
        """The features of an earlier pass, or None where no intact file holds them."""
        for path in (self.path, self._cache.find("features", self._key)):
            if path is None or not path.is_file():
                continue
            if file_sha256(path) != sha256:
                self._ctx.warn(f"{path.name} is damaged and is made again")
                continue
            if path != self.path:
                link_or_copy(path, self.path)
            return self.map()
        return None

    def map(self) -> torch.Tensor:
        """The features as they lie in the run directory, unchecked. Raises OSError."""
        # Copy-on-write: a writable view, as PyTorch wants it, whose changes would never reach the file.
        return torch.from_numpy(np.load(self.path, mmap_mode="c"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()
