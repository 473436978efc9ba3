"""What a data set holds before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.data.decode import decode


@dataclass(frozen=True)
class Split:
    """Images of one split. ``items`` are files, encoded bytes or raw uint8 tensors (3, H, W); ``marks`` identify
    their content (size and time of a file, hash of bytes); ``paths``, where there are any, say what file the bytes
    came from. A label of -1 is not known. Of files and bytes the central square of ``share`` of the shorter side is
    taken."""

    items: Sequence[Path | bytes | torch.Tensor]
    names: Sequence[str]
    marks: Sequence[str]
    labels_N: torch.Tensor
    paths: Sequence[str] = ()
    share: float = 1.0

    def take(self, indices: Sequence[int]) -> Split:
        """The images at the given positions, in that order."""
        return Split(
            [self.items[index] for index in indices],
            [self.names[index] for index in indices],
            [self.marks[index] for index in indices],
            self.labels_N[torch.as_tensor(indices, dtype=torch.int64)],
            [self.paths[index] for index in indices] if self.paths else (),
            self.share,
        )

    def decode(self, index: int, resolution: int) -> torch.Tensor:
        """uint8 (3, resolution, resolution). Raises DataError, OSError."""
        item = self.items[index]
        if not isinstance(item, torch.Tensor):
            return decode(item, resolution, self.names[index], self.share)
        if item.shape[-1] == resolution:
            return item
        resized = torch.nn.functional.interpolate(
            item[None].float(),
            size=(resolution, resolution),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        return resized[0].round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Listing:
    """A data set's classes and splits; ``val`` is None where it has no split of its own."""

    name: str
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    warnings: tuple[str, ...] = ()
