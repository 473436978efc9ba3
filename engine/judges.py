"""Teachers by which images are optimised: each one's network, its statistics and barycenters of the real images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from engine.chunks import Chunk
from engine.context import Context
from engine.losses import Targets
from engine.recipe import make_targets
from engine.statistics import Statistics


@dataclass(frozen=True)
class Points:
    """Barycenters of all classes: points (C, K, D), weights (C, K), W2² (C,); float64."""

    points_CKD: torch.Tensor
    weights_CK: torch.Tensor
    w2sq_C: torch.Tensor


@dataclass(frozen=True)
class Judge:
    """A teacher of a committee: its network, its statistics and barycenters of the real images."""

    network: nn.Module
    found: Statistics | None
    points: Points | None


def targets_of(ctx: Context, chunk: Chunk, judge: Judge) -> Targets:
    """What one teacher wants of a chunk."""
    return make_targets(
        chunk,
        ctx.config,
        judge.network,
        judge.found,
        judge.points.points_CKD if judge.points else None,
        judge.points.weights_CK if judge.points else None,
        ctx.device,
    )
