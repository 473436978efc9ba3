"""Chunks: which images are optimised together, and where they start.

A *chunk* is the unit of work and of randomness, and its composition is part of the result (un-squared norms couple
its images), so it never depends on memory.

Shapes: B images of a chunk, N training images, K = IPC.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.data import Dataset, normalise
from engine.randomness import generator, permutation


@dataclass(frozen=True)
class Chunk:
    """Images optimised together: their classes and their ordinals within the class, both (B,) int64."""

    index: int
    labels_B: torch.Tensor
    ordinals_B: torch.Tensor


def plan_chunks(classes: int, ipc: int, batch_size: int, chunk: str) -> list[Chunk]:
    """Divide classes × ipc images into chunks.

    "per-class": ``batch_size // ipc`` whole classes, at least one; the last chunk may be smaller.
    "across-classes": image j of up to ``batch_size`` classes.
    """
    groups: list[tuple[torch.Tensor, torch.Tensor]] = []
    if chunk == "per-class":
        for labels in torch.arange(classes).split(max(1, batch_size // ipc)):
            groups.append((labels.repeat_interleave(ipc), torch.arange(ipc).repeat(len(labels))))
    else:
        for labels in torch.arange(classes).split(batch_size):
            groups += [(labels, torch.full_like(labels, ordinal)) for ordinal in range(ipc)]
    return [Chunk(index, labels_B, ordinals_B) for index, (labels_B, ordinals_B) in enumerate(groups)]


def initial_images(chunk: Chunk, dataset: Dataset, init: str, seed: int) -> torch.Tensor:
    """Start (B, 3, H, W) in normalised space: N(0, 1) noise, or distinct random real images of each class."""
    size = dataset.resolution
    if init == "noise":
        return torch.stack(
            [
                torch.randn(3, size, size, generator=generator(seed, "recover-init", label, ordinal))
                for label, ordinal in zip(chunk.labels_B.tolist(), chunk.ordinals_B.tolist(), strict=True)
            ]
        )
    index = real_indices(chunk, dataset.train.labels_N, seed)
    return normalise(dataset.train.batch(index), dataset.mean, dataset.std).cpu()


def real_indices(chunk: Chunk, labels_N: torch.Tensor, seed: int) -> torch.Tensor:
    """For each image of the chunk a training image of its class: the j-th of a seeded permutation."""
    index = []
    for label, ordinal in zip(chunk.labels_B.tolist(), chunk.ordinals_B.tolist(), strict=True):
        members = (labels_N == label).nonzero().flatten()
        index.append(int(members[permutation(len(members), seed, "real-images", label)[ordinal % len(members)]]))
    return torch.tensor(index)
