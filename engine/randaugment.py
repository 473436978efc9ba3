"""RandAugment on every image of a set, as a function of (seed, epoch, image): the control with hard labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torchvision.transforms import RandAugment

from engine.data import ImageSource
from engine.policies import each


class RandAugmented:
    """An ``ImageSource`` whose images are another's, changed by RandAugment as the epoch has it.

    One image looks the same however often and in whatever batch it is asked for within an epoch.
    """

    def __init__(self, source: ImageSource, operations: int, magnitude: int, seed: int) -> None:
        self.labels_N = source.labels_N
        self.epoch = 0
        self._source = source
        self._seed = seed
        self._change = RandAugment(operations, magnitude)

    def __len__(self) -> int:
        return len(self._source)

    def batch(self, indices_B: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) on the source's device."""
        return self._changed(indices_B, self._source.batch(indices_B))

    def batches(self, index_lists: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The batches of several index lists, prefetched where the source does that."""
        lists = list(index_lists)
        return (self._changed(index, images) for index, images in zip(lists, self._source.batches(lists), strict=True))

    def _changed(self, indices_B: torch.Tensor, images_BCHW: torch.Tensor) -> torch.Tensor:
        return each(images_BCHW, indices_B.tolist(), self._change, self._seed, "randaugment", self.epoch)
