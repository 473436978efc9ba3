"""How well images match what recovery aims at, measured without augmentation: the method's own yardstick.

The same figures for as many random real photographs stand beside those of the synthetic images, so that anybody
sees what the optimisation gained, and where it merely fitted the teacher.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.chunks import Chunk
from engine.context import Context
from engine.data import Dataset, normalise
from engine.losses import Coefficients, Collected, Targets, chunk_loss, collect, join
from engine.models.instrument import Probe
from engine.rundir import write_whole
from engine.starts import real_indices

FORWARD_BATCH = 256
#: The teacher's features of the synthetic images, in the run's report folder.
FEATURES = "image_features.npy"


@dataclass(frozen=True)
class Quality:
    """Means over chunks of the terms as the total has them, and the teacher's top-1 in percent on the images."""

    teacher_top1: float
    ce: float
    feature: float
    bn: float

    def facts(self) -> dict[str, float]:
        """Plain values for a report."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def measure(
    ctx: Context,
    network: nn.Module,
    chunks: Iterable[tuple[torch.Tensor, Targets]],
    coefficients: Coefficients,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    keep: Callable[[torch.Tensor], None] = lambda _: None,
) -> Quality:
    """Terms of the uint8 images (B, 3, H, W) of each chunk against its targets, as they are, without a view.

    ``keep`` is given the features (B, D) of each chunk in turn. Raises Stopped, OutOfMemory.
    """
    probe = Probe(network)
    sums: list[list[float]] = []
    correct = images = 0

    def forward(rows: slice) -> None:
        nonlocal correct
        logits, features, layers = probe(normalise(images_BCHW[rows].to(ctx.device), mean, std))
        hits = int((logits.argmax(1) == targets.labels_B[rows]).sum())
        parts.append(collect(logits, features, layers, targets, rows))
        correct += hits

    try:
        with torch.no_grad():
            for images_BCHW, targets in chunks:
                parts: list[Collected] = []
                for start in range(0, len(images_BCHW), FORWARD_BATCH):
                    ctx.cut("quality", slice(start, min(start + FORWARD_BATCH, len(images_BCHW))), forward)
                collected = join(parts)
                keep(collected.features_BD)
                terms = chunk_loss(collected, targets, coefficients)
                sums.append([float(terms.ce), float(terms.feature), float(terms.bn)])
                images += len(images_BCHW)
                ctx.stop_if_asked("recover")
    finally:
        probe.close()
    ce, feature, bn = (sum(column) / len(sums) for column in zip(*sums, strict=True))
    return Quality(100 * correct / images, ce, feature, bn)


def against_real(
    ctx: Context,
    network: nn.Module,
    dataset: Dataset,
    plan: list[Chunk],
    images_of: Callable[[Chunk], torch.Tensor],
    targets_of: Callable[[Chunk], Targets],
    coefficients: Coefficients,
) -> tuple[Quality, Quality]:
    """Quality of a set's images and of as many random real photographs, chunk by chunk. Raises Stopped, OutOfMemory.

    The features of the set's images are left in ``report/image_features.npy``, float32 (C · IPC, D), class by class.
    """
    features: list[torch.Tensor] = []
    own = ((images_of(chunk), targets_of(chunk)) for chunk in plan)
    real = (
        (dataset.train.batch(real_indices(chunk, dataset.train.labels_N, ctx.config.seed)), targets_of(chunk))
        for chunk in plan
    )
    mean, std = dataset.mean, dataset.std
    first = measure(ctx, network, own, coefficients, mean, std, lambda found_BD: features.append(found_BD.cpu()))
    ipc = ctx.config.ipc
    place_N = torch.cat([chunk.labels_B * ipc + chunk.ordinals_B for chunk in plan]).argsort()
    write_features(ctx.run.report / FEATURES, torch.cat(features)[place_N])
    return first, measure(ctx, network, real, coefficients, mean, std)


def write_features(path: Path, features_ND: torch.Tensor) -> None:
    """Write features as a NumPy file, whole or not at all. Raises OSError."""
    buffer = io.BytesIO()
    np.save(buffer, features_ND.float().numpy())
    write_whole(path, buffer.getvalue())
