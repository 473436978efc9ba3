"""Per-class BatchNorm statistics and features of the real images, in one pass over the data.

For every class c and BatchNorm layer l: mean and biased variance of the layer's input over (images of the
class, height, width). The exact variance comes from sums shifted by the teacher's running mean, in float64, so
it does not depend on the order or the batches of the pass.

Differences from the authors' code: ``variance = "exact"`` keeps the variance between loading batches that
theirs drops; ``"batch-averaged"`` is theirs (the size-weighted mean of the variances within loading batches).

Shapes: N images, C classes, F channels of a layer, D feature size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from engine.data import Dataset, normalise
from engine.models.instrument import Probe, bn_layers


@dataclass(frozen=True)
class LayerStatistics:
    """Mean and variance of one BatchNorm layer's input for each class, float32 (C, F)."""

    name: str
    mean_CF: torch.Tensor
    var_CF: torch.Tensor


@dataclass(frozen=True)
class Statistics:
    """What recovery and barycenters need of the real images; CPU tensors."""

    layers: tuple[LayerStatistics, ...]
    features_ND: torch.Tensor
    labels_N: torch.Tensor
    correct: int

    def features_of(self, label: int) -> torch.Tensor:
        """Features (n, D) of one class, in the order of the data set."""
        return self.features_ND[self.labels_N == label]


class ClassMoments:
    """Sums of one layer's input and its square for each class, shifted by ``shift_F`` and kept in float64."""

    def __init__(self, classes: int, shift_F: torch.Tensor) -> None:
        channels = shift_F.shape[0]
        device = shift_F.device
        self.shift_F = shift_F.float()
        self.count_C = torch.zeros(classes, dtype=torch.float64, device=device)
        self.sum_CF = torch.zeros(classes, channels, dtype=torch.float64, device=device)
        self.square_CF = torch.zeros(classes, channels, dtype=torch.float64, device=device)

    def add(self, inputs_NCHW: torch.Tensor, labels_N: torch.Tensor) -> None:
        """Add a batch in any order of classes; no synchronisation."""
        shifted = inputs_NCHW.float() - self.shift_F[None, :, None, None]
        pixels = shifted.shape[2] * shifted.shape[3]
        self.count_C.index_add_(0, labels_N, torch.full_like(labels_N, pixels, dtype=torch.float64))
        self.sum_CF.index_add_(0, labels_N, shifted.sum((2, 3), dtype=torch.float64))
        self.square_CF.index_add_(0, labels_N, shifted.square().sum((2, 3), dtype=torch.float64))

    def mean(self) -> torch.Tensor:
        return self.sum_CF / self.count_C[:, None] + self.shift_F.double()

    def variance(self) -> torch.Tensor:
        """Biased variance (C, F)."""
        offset = self.sum_CF / self.count_C[:, None]
        return (self.square_CF / self.count_C[:, None] - offset.square()).clamp(min=0)


def loading_batches(labels_N: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Index lists of at most ``size`` images of one class each, in data order (the reference's loader)."""
    lists = []
    for label in labels_N.unique(sorted=True):
        lists += list((labels_N == label).nonzero().flatten().split(size))
    return lists


def collect(
    network: nn.Module,
    labels_N: torch.Tensor,
    batches: Sequence[torch.Tensor],
    load: Callable[[Sequence[torch.Tensor]], Iterable[torch.Tensor]],
    classes: int,
    device: torch.device,
    batch_averaged: bool,
    after_batch: Callable[[int], None] = lambda _done: None,
    allocate: Callable[[int, int], torch.Tensor] = torch.zeros,
) -> Statistics:
    """Run the teacher once over all ``batches`` and return exact or batch-averaged statistics.

    ``load(batches)`` yields normalised float images of each index list. With ``batch_averaged`` every batch
    must hold one class. ``after_batch`` is called with the number of images done; it may raise to stop.
    ``allocate(N, D)`` makes the tensor that takes the features: in memory, or memory-mapped.
    """
    layers = bn_layers(network)
    moments = [ClassMoments(classes, _shift(layer).to(device)) for _, layer in layers]
    within = [torch.zeros_like(moment.sum_CF) for moment in moments]
    features_ND: torch.Tensor | None = None
    correct = torch.zeros((), dtype=torch.int64, device=device)
    probe = Probe(network)
    done = 0
    try:
        with torch.no_grad():
            for index, images_NCHW in zip(batches, load(batches), strict=True):
                labels = labels_N[index].to(device)
                logits, features, inputs = probe(images_NCHW)
                for moment, within_CF, inputs_NCHW in zip(moments, within, inputs, strict=True):
                    moment.add(inputs_NCHW, labels)
                    if batch_averaged:
                        variance_F = inputs_NCHW.float().var((0, 2, 3), unbiased=False).double()
                        within_CF.index_add_(0, labels[:1], variance_F[None] * len(index))
                if features_ND is None:
                    features_ND = allocate(len(labels_N), features.shape[1])
                features_ND[index] = features.float().cpu()
                correct += (logits.argmax(1) == labels).sum()
                done += len(index)
                after_batch(done)
    finally:
        probe.close()
    if features_ND is None:
        raise ValueError("statistics need at least one image")
    images_C = torch.bincount(labels_N, minlength=classes).double().to(device)
    return Statistics(
        layers=tuple(
            LayerStatistics(
                name,
                moment.mean().float().cpu(),
                ((within_CF / images_C[:, None]) if batch_averaged else moment.variance()).float().cpu(),
            )
            for (name, _), moment, within_CF in zip(layers, moments, within, strict=True)
        ),
        features_ND=features_ND,
        labels_N=labels_N.clone(),
        correct=int(correct),
    )


def _shift(layer: nn.BatchNorm2d) -> torch.Tensor:
    if layer.running_mean is None:
        return torch.zeros(layer.num_features)
    return layer.running_mean.detach()


def of_dataset(
    network: nn.Module,
    dataset: Dataset,
    device: torch.device,
    variance: str,
    batch_size: int,
    loading_batch: int,
    after_batch: Callable[[int], None] = lambda _done: None,
    allocate: Callable[[int, int], torch.Tensor] = torch.zeros,
) -> Statistics:
    """Statistics of a data set's training images by the teacher in eval mode."""
    network.eval()
    source = dataset.train
    averaged = variance == "batch-averaged"
    if averaged:
        batches = loading_batches(source.labels_N, loading_batch)
    else:
        batches = list(torch.arange(len(source)).split(batch_size))

    def load(lists: Sequence[torch.Tensor]) -> Iterable[torch.Tensor]:
        return (normalise(images, dataset.mean, dataset.std) for images in source.batches(lists))

    classes = len(dataset.class_names)
    return collect(network, source.labels_N, batches, load, classes, device, averaged, after_batch, allocate)


def to_tensors(statistics: Statistics) -> dict[str, torch.Tensor]:
    """Flat tensors for a safetensors file: everything but the features, which have a file of their own."""
    tensors = {
        "labels_N": statistics.labels_N,
        "correct": torch.tensor(statistics.correct),
    }
    for index, layer in enumerate(statistics.layers):
        tensors[f"{index:04d}/{layer.name}/mean_CF"] = layer.mean_CF
        tensors[f"{index:04d}/{layer.name}/var_CF"] = layer.var_CF
    return {key: tensor.contiguous() for key, tensor in tensors.items()}


def from_tensors(tensors: dict[str, torch.Tensor], features_ND: torch.Tensor) -> Statistics:
    """The inverse of ``to_tensors``."""
    names = sorted(key.removesuffix("/mean_CF") for key in tensors if key.endswith("/mean_CF"))
    return Statistics(
        layers=tuple(
            LayerStatistics(key.split("/", 1)[1], tensors[f"{key}/mean_CF"], tensors[f"{key}/var_CF"]) for key in names
        ),
        features_ND=features_ND,
        labels_N=tensors["labels_N"],
        correct=int(tensors["correct"]),
    )
