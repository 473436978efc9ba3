"""Top-1 and top-5 accuracy on real validation images."""

from __future__ import annotations

import torch
from torch import nn

from engine.data import ImageSource, normalise


def evaluate(
    network: nn.Module,
    source: ImageSource,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int,
    device: torch.device,
) -> tuple[float, float]:
    """Top-1 and top-5 in percent; counts stay on the device, one synchronisation at the end."""
    was_training = network.training
    network.eval()
    hits = torch.zeros(2, dtype=torch.int64, device=device)
    index_lists = list(torch.arange(len(source)).split(batch_size))
    with torch.no_grad():
        for index, images in zip(index_lists, source.batches(index_lists), strict=True):
            labels = source.labels_N[index].to(device)
            logits = network(normalise(images, mean, std))
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            hits += torch.stack([best[:, 0].sum(), best.any(1).sum()])
    network.train(was_training)
    top1, top5 = (100.0 * count / len(source) for count in hits.tolist())
    return top1, top5
