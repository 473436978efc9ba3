"""Chunks: which images are optimised together.

A *chunk* is the unit of work and of randomness, and its composition is part of the result (un-squared norms couple
its images), so it never depends on memory.

Shapes: B images of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
