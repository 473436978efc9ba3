"""Per-class BatchNorm statistics and features of the real images, in one pass over the data.

For every class c and BatchNorm layer l: mean and biased variance of the layer's input over (images of the
class, height, width). The exact variance comes from sums shifted by the teacher's running mean, in float32 within an
image and in float64 over images. They are added up within *shards* of batches, and then shard after shard: neither
depends on how many processes share the pass, so its result has the same bytes however many do.

Differences from the authors' code: ``variance = "exact"`` keeps the variance between loading batches that
theirs drops; ``"batch-averaged"`` is theirs (the size-weighted mean of the variances within loading batches).

Shapes: N images, C classes, F channels of a layer, D feature size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from engine.behind import on_host
from engine.data import Dataset, normalise
from engine.distributed.planning import ranges
from engine.losses import image_moments
from engine.models.instrument import Forward, bn_layers, classifier_layer, looking_into

#: Fewest batches of a shard: smaller passes are added up in one piece.
SHARD_BATCHES = 8
#: Images of a forward pass on a CPU: more gain nothing there, and their activations leave the caches and take memory.
CPU_IMAGES = 32


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


@dataclass(frozen=True)
class ImageSums:
    """Pixels, and sums over them of one layer's shifted input and its square, for each image; float64."""

    count_N: torch.Tensor
    sum_NF: torch.Tensor
    square_NF: torch.Tensor


class ClassMoments:
    """Sums of one layer's input and its square for each class, shifted by ``shift_F`` and kept in float64."""

    def __init__(self, classes: int, shift_F: torch.Tensor) -> None:
        channels = shift_F.shape[0]
        device = shift_F.device
        self.shift_F = shift_F.float()
        self.count_C = torch.zeros(classes, dtype=torch.float64, device=device)
        self.sum_CF = torch.zeros(classes, channels, dtype=torch.float64, device=device)
        self.square_CF = torch.zeros(classes, channels, dtype=torch.float64, device=device)

    def of_images(self, inputs_NCHW: torch.Tensor) -> ImageSums:
        """Sums of each image of a batch; no synchronisation."""
        images, _, height, width = inputs_NCHW.shape
        first_NF, second_NF = image_moments(inputs_NCHW, self.shift_F.expand(images, -1))
        pixels = height * width
        return ImageSums(
            torch.full((images,), pixels, dtype=torch.float64, device=inputs_NCHW.device),
            first_NF.double() * pixels,
            second_NF.double() * pixels,
        )

    def add(self, sums: ImageSums, labels_N: torch.Tensor) -> None:
        """Add images in any order of classes."""
        self.count_C.index_add_(0, labels_N, sums.count_N)
        self.sum_CF.index_add_(0, labels_N, sums.sum_NF)
        self.square_CF.index_add_(0, labels_N, sums.square_NF)

    def mean(self) -> torch.Tensor:
        return self.sum_CF / self.count_C[:, None] + self.shift_F.double()

    def variance(self) -> torch.Tensor:
        """Biased variance (C, F)."""
        offset = self.sum_CF / self.count_C[:, None]
        return (self.square_CF / self.count_C[:, None] - offset.square()).clamp(min=0)


class Sums:
    """What a pass over the data adds up: moments of every layer, within-batch variances, correct answers."""

    def __init__(self, network: nn.Module, classes: int, device: torch.device, batch_averaged: bool) -> None:
        layers = bn_layers(network)
        self.names = [name for name, _ in layers]
        self.moments = [ClassMoments(classes, _shift(layer).to(device)) for _, layer in layers]
        self.within = [torch.zeros_like(moment.sum_CF) for moment in self.moments]
        self.batch_averaged = batch_averaged
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self._folded: dict[str, torch.Tensor] = {}

    def add(self, logits_NC: torch.Tensor, inputs: Sequence[torch.Tensor], labels_N: torch.Tensor) -> None:
        """Add a batch. What needs memory comes first: a batch that does not fit leaves the sums as they were."""
        sums = [moment.of_images(x) for moment, x in zip(self.moments, inputs, strict=True)]
        variances = []
        if self.batch_averaged:
            variances = [x.float().var((0, 2, 3), unbiased=False).double()[None] * len(labels_N) for x in inputs]
        correct = (logits_NC.argmax(1) == labels_N).sum()
        for moment, one in zip(self.moments, sums, strict=True):
            moment.add(one, labels_N)
        for within_CF, variance in zip(self.within, variances, strict=False):
            within_CF.index_add_(0, labels_N[:1], variance)
        self.correct += correct

    def _own(self) -> dict[str, torch.Tensor]:
        """The sums of the shard at work, by name."""
        found = {"correct": self.correct}
        for index, (moment, within_CF) in enumerate(zip(self.moments, self.within, strict=True)):
            found |= {
                f"{index:04d}/count_C": moment.count_C,
                f"{index:04d}/sum_CF": moment.sum_CF,
                f"{index:04d}/square_CF": moment.square_CF,
            }
            if self.batch_averaged:
                found[f"{index:04d}/within_CF"] = within_CF
        return found

    def fold(self) -> None:
        """Close a shard: its sums are added to those of the shards before, on the CPU, and begin again at zero."""
        for name, tensor in self._own().items():
            shard = tensor.cpu()
            # The first one is copied: what follows zeroes the tensor, which on the CPU is the same.
            self._folded[name] = self._folded[name].add_(shard) if name in self._folded else shard.clone()
            tensor.zero_()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything by name: for a checkpoint, and to take one back into sums built alike."""
        return self._own() | {f"folded/{name}": tensor for name, tensor in self._folded.items()}

    def restore(self, saved: dict[str, torch.Tensor]) -> None:
        for name, tensor in self._own().items():
            tensor.copy_(saved[name])
        folded = {name.removeprefix("folded/"): tensor for name, tensor in saved.items() if name.startswith("folded/")}
        self._folded = {name: tensor.clone() for name, tensor in folded.items()}

    def rows(self) -> dict[str, torch.Tensor]:
        """The sums of the shard at work of the classes that occur in it, on the CPU: what a shard is stored as."""
        own = self._own()
        present_P = own["0000/count_C"].nonzero().flatten() if self.moments else torch.zeros(0, dtype=torch.int64)
        found = {name: tensor[present_P].cpu() for name, tensor in own.items() if name != "correct"}
        return {**found, "correct": self.correct.cpu().clone(), "present_P": present_P.cpu()}

    def clear(self) -> None:
        """Begin the shard at work at zero."""
        for tensor in self._own().values():
            tensor.zero_()

    def take_rows(self, stored: dict[str, torch.Tensor]) -> None:
        """Put a stored shard's sums in place of those at work, and fold them."""
        for name, tensor in self._own().items():
            if name == "correct":
                tensor.copy_(stored[name])
            else:
                tensor[stored["present_P"].to(tensor.device)] = stored[name].to(tensor.device)
        self.fold()

    def layers(self, images_C: torch.Tensor) -> tuple[LayerStatistics, ...]:
        """Mean and variance of every layer; ``images_C`` counts the images of each class. Closes the last shard."""
        if self._folded:
            self.fold()
            for name, tensor in self._own().items():
                tensor.copy_(self._folded[name])
            self._folded = {}
        found = []
        for name, moment, within_CF in zip(self.names, self.moments, self.within, strict=True):
            variance_CF = within_CF / images_C[:, None] if self.batch_averaged else moment.variance()
            found.append(LayerStatistics(name, moment.mean().float().cpu(), variance_CF.float().cpu()))
        return tuple(found)


def shards(batches: int) -> list[range]:
    """The batches of each shard of a pass."""
    return ranges(batches, SHARD_BATCHES)


def loading_batches(labels_N: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Index lists of at most ``size`` images of one class each, in data order (the reference's loader)."""
    lists = []
    for label in labels_N.unique(sorted=True):
        lists += list((labels_N == label).nonzero().flatten().split(size))
    return lists


def _whole(rows: slice, work: Callable[[slice], None]) -> None:
    work(rows)


def collect(
    network: nn.Module,
    labels_N: torch.Tensor,
    batches: Sequence[torch.Tensor],
    load: Callable[[Sequence[torch.Tensor]], Iterable[torch.Tensor]],
    classes: int,
    device: torch.device,
    batch_averaged: bool,
    after_batch: Callable[[int, Sums, Callable[[], torch.Tensor]], None] = lambda *_: None,
    allocate: Callable[[int, int], torch.Tensor] = torch.zeros,
    first: int = 0,
    sums: Sums | None = None,
    cut: Callable[[slice, Callable[[slice], None]], None] = _whole,
    bf16: bool = False,
) -> Statistics:
    """Run the teacher once over all ``batches`` and return exact or batch-averaged statistics.

    ``load(batches)`` yields normalised float images of each index list. With ``batch_averaged`` every batch
    must hold one class. ``allocate(N, D)`` makes the tensor that takes the features: in memory, or memory-mapped.

    A pass can be broken off: ``after_batch`` gets the number of batches done, the sums, and what waits for the features
    so far and gives them; it may raise. ``first`` and ``sums`` go on from there. ``cut(rows, work)`` may do a batch in
    several forward passes. With ``bf16`` the network is computed in bf16; sums are float64 all the same.
    """
    sums = sums or Sums(network, classes, device, batch_averaged)
    features_ND = allocate(len(labels_N), classifier_layer(network).in_features)
    ends = {shard.stop for shard in shards(len(batches))[:-1]}

    def after(done: int, land: Callable[[], None]) -> None:
        def landed() -> torch.Tensor:
            land()
            return features_ND

        if done in ends:
            sums.fold()
        after_batch(done, sums, landed)

    def keep(index_B: torch.Tensor, found_BD: torch.Tensor) -> None:
        features_ND[index_B] = found_BD

    add_batches(network, labels_N, batches, range(first, len(batches)), load, sums, keep, after, cut, bf16)
    return finished(sums, features_ND, labels_N, classes)


def finished(sums: Sums, features_ND: torch.Tensor, labels_N: torch.Tensor, classes: int) -> Statistics:
    """The statistics of a pass that is done."""
    images_C = torch.bincount(labels_N, minlength=classes).double().to(sums.correct.device)
    layers = sums.layers(images_C)
    return Statistics(layers, features_ND, labels_N.clone(), int(sums.correct))


def add_batches(
    network: nn.Module,
    labels_N: torch.Tensor,
    batches: Sequence[torch.Tensor],
    wanted: range,
    load: Callable[[Sequence[torch.Tensor]], Iterable[torch.Tensor]],
    sums: Sums,
    keep: Callable[[torch.Tensor, torch.Tensor], None],
    after_batch: Callable[[int, Callable[[], None]], None],
    cut: Callable[[slice, Callable[[slice], None]], None] = _whole,
    bf16: bool = False,
) -> None:
    """Add the ``wanted`` batches to the sums, and hand the features of their images to ``keep``, with their indices.

    The features of a batch are waited for when the device has the next to do, so that it never waits for the host.
    ``after_batch`` gets the number of batches done, those before ``wanted`` included, and what waits for all features.
    """
    device, forward = sums.correct.device, None
    left = [batches[number] for number in wanted]
    under_way: deque[tuple[torch.Tensor, Callable[[], torch.Tensor]]] = deque()

    def land(leaving: int = 0) -> None:
        while len(under_way) > leaving:
            index, wait = under_way.popleft()
            keep(index, wait())

    with ExitStack() as opened, torch.no_grad():
        for done, (index, images_NCHW) in enumerate(zip(left, load(left), strict=True), start=wanted.start + 1):
            if forward is None:  # the images tell their size
                forward = opened.enter_context(looking_into(network, images_NCHW.shape[-1]))
            labels = labels_N[index].to(device, non_blocking=True)
            images_NCHW = images_NCHW.contiguous(memory_format=torch.channels_last)
            work = partial(_add_images, forward, images_NCHW, labels, index, sums, under_way, bf16)
            # The variance within a loading batch needs all of it at once.
            most = CPU_IMAGES if device.type == "cpu" and not sums.batch_averaged else len(index)
            for start in range(0, len(index), most):
                cut(slice(start, min(start + most, len(index))), work)
            land(leaving=1)
            after_batch(done, land)
        land()


def _shift(layer: nn.BatchNorm2d) -> torch.Tensor:
    if layer.running_mean is None:
        return torch.zeros(layer.num_features)
    return layer.running_mean.detach()


def _add_images(
    forward: Forward,
    images_NCHW: torch.Tensor,
    labels_N: torch.Tensor,
    index_N: torch.Tensor,
    sums: Sums,
    under_way: deque[tuple[torch.Tensor, Callable[[], torch.Tensor]]],
    bf16: bool,
    part: slice,
) -> None:
    """One forward pass of a part of a batch; changes nothing where it does not fit."""
    with torch.autocast(images_NCHW.device.type, torch.bfloat16, enabled=bf16):
        logits, features, inputs = forward(images_NCHW[part])
    found = on_host(features.float())
    sums.add(logits, inputs, labels_N[part])
    under_way.append((index_N[part], found))


def passes(labels_N: torch.Tensor, variance: str, batch_size: int, loading_batch: int) -> list[torch.Tensor]:
    """The index lists of a pass: data order, or batches of one class where their variances are averaged."""
    if variance == "batch-averaged":
        return loading_batches(labels_N, loading_batch)
    return list(torch.arange(len(labels_N)).split(batch_size))


def loader(dataset: Dataset) -> Callable[[Sequence[torch.Tensor]], Iterable[torch.Tensor]]:
    """Normalised training images of index lists."""

    def load(lists: Sequence[torch.Tensor]) -> Iterable[torch.Tensor]:
        return (normalise(images, dataset.mean, dataset.std) for images in dataset.train.batches(lists))

    return load


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
