"""Stateless randomness: every random choice is a function of (seed, stage, unit, iteration).

Nothing draws from a global generator, so resuming needs no generator state and a result does not depend on
which process did which unit.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *keys: str | int) -> int:
    """A 63-bit seed for one purpose: a hash of the run's seed and the purpose's keys."""
    text = "\x1f".join([str(seed), *(str(key) for key in keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator for one purpose. Draws are made on the CPU so that they are equal on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, *keys))


def permutation(count: int, seed: int, *keys: str | int) -> torch.Tensor:
    """A seeded permutation of range(count), int64."""
    return torch.randperm(count, generator=generator(seed, *keys))
