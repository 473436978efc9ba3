"""Where a split's images come from: kept on the device, or decoded batch by batch.

Shapes: uint8 images (N, 3, H, W), RGB, square.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch

PREFETCH = 2


class ImageSource(Protocol):
    """One split of a data set. ``labels_N`` is int64 on the CPU."""

    labels_N: torch.Tensor

    def __len__(self) -> int: ...

    def batch(self, indices_B: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, H, W) on the device."""

    def batches(self, index_lists: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The batches of several index lists, prefetched where that helps."""


class ResidentSource:
    """All images decoded, on the device."""

    def __init__(self, images_NCHW: torch.Tensor, labels_N: torch.Tensor, device: torch.device) -> None:
        self.labels_N = labels_N
        self._images_NCHW = images_NCHW.to(device)

    def __len__(self) -> int:
        return len(self.labels_N)

    def batch(self, indices_B: torch.Tensor) -> torch.Tensor:
        return self._images_NCHW[indices_B.to(self._images_NCHW.device, non_blocking=True)]

    def batches(self, index_lists: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        return (self.batch(index) for index in index_lists)


class StreamedSource:
    """Images decoded by threads whenever they are asked for; memory is bounded by a few batches."""

    def __init__(
        self,
        decode: Callable[[int], torch.Tensor],
        labels_N: torch.Tensor,
        device: torch.device,
        workers: int,
    ) -> None:
        self.labels_N = labels_N
        self._decode = decode
        self._device = device
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self.labels_N)

    def _submit(self, indices_B: torch.Tensor) -> list[Future[torch.Tensor]]:
        return [self._pool.submit(self._decode, index) for index in indices_B.tolist()]

    def _gather(self, futures: list[Future[torch.Tensor]]) -> torch.Tensor:
        images = [future.result() for future in futures]
        # Pinned: a GPU takes it while it still computes, and the host goes on.
        host_BCHW = torch.empty(
            len(images), *images[0].shape, dtype=images[0].dtype, pin_memory=self._device.type == "cuda"
        )
        torch.stack(images, out=host_BCHW)
        return host_BCHW.to(self._device, non_blocking=True)

    def batch(self, indices_B: torch.Tensor) -> torch.Tensor:
        return self._gather(self._submit(indices_B))

    def batches(self, index_lists: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        waiting: deque[list[Future[torch.Tensor]]] = deque()
        for index in index_lists:
            waiting.append(self._submit(index))
            if len(waiting) > PREFETCH:
                yield self._gather(waiting.popleft())
        while waiting:
            yield self._gather(waiting.popleft())
