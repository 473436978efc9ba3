"""Top-1 and top-5 accuracy on real validation images."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from engine.context import Context
from engine.data import ImageSource, normalise


def evaluate(
    ctx: Context,
    stage: str,
    network: nn.Module,
    source: ImageSource,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> tuple[float, float]:
    """Top-1 and top-5 in percent; counts stay on the device, one synchronisation at the end.

    Raises Stopped in the name of ``stage``, OutOfMemory, DataError.
    """
    was_training = network.training
    network.eval()
    hits = torch.zeros(2, dtype=torch.int64, device=ctx.device)
    index_lists = list(torch.arange(len(source)).split(ctx.config.train.eval_batch))
    with torch.no_grad():
        for index, images in zip(index_lists, source.batches(index_lists), strict=True):
            inputs, labels = normalise(images, mean, std), source.labels_N[index].to(ctx.device, non_blocking=True)
            ctx.cut("evaluation", slice(0, len(index)), partial(_count, network, inputs, labels, hits))
            ctx.stop_if_asked(stage)
    network.train(was_training)
    top1, top5 = (100.0 * count / len(source) for count in hits.tolist())
    return top1, top5


def _count(
    network: nn.Module, inputs_BCHW: torch.Tensor, labels_B: torch.Tensor, hits: torch.Tensor, part: slice
) -> None:
    """Add the hits of some images of a batch."""
    logits = network(inputs_BCHW[part])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels_B[part, None]
    hits += torch.stack([best[:, 0].sum(), best.any(1).sum()])
