"""Statistics and features of the real images: one pass of the product against two passes with a loader a class."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.baselines.statistics import Files, InMemory, Loader, survey
from benchmarks.harness.comparison import compared, of_part, relative
from benchmarks.harness.options import Options
from benchmarks.harness.problem import MEAN, STD, dataset, real_images, settings, teacher
from engine import statistics
from engine.config import RunConfig
from engine.data import Dataset, load_dataset
from engine.devices import computes_in_bf16
from engine.statistics import Statistics

LOADING_BATCH = 100
#: On a GPU the plain loop is timed on so many classes, for starting its loaders takes longest, and is told for all.
PART = 3


def product(config: RunConfig, network: nn.Module, data: Dataset, device: torch.device) -> Statistics:
    """The stage: one pass over the training images."""
    options, labels_N = config.statistics, data.train.labels_N
    batches = statistics.passes(labels_N, options.variance, options.batch_size, options.loading_batch)
    return statistics.collect(
        network, labels_N, batches, statistics.loader(data), len(data.class_names), device,
        options.variance == "batch-averaged", bf16=computes_in_bf16(config.precision_of("statistics"), device.type),
    )  # fmt: skip


def memory_loader(images_NCHW: torch.Tensor, labels_N: torch.Tensor, workers: int) -> Loader:
    """The baseline's loader of each class, from decoded images in the host's memory."""

    def load(label: int) -> DataLoader[torch.Tensor]:
        return DataLoader(InMemory(images_NCHW[labels_N == label], MEAN, STD), LOADING_BATCH, num_workers=workers)

    return load


def file_loader(folder: Path, size: int, workers: int) -> Loader:
    """The baseline's loader of each class, from files."""
    classes = sorted((folder / "train").iterdir())

    def load(label: int) -> DataLoader[torch.Tensor]:
        return DataLoader(Files(classes[label], size, MEAN, STD), LOADING_BATCH, num_workers=workers)

    return load


def write_jpegs(folder: Path, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> None:
    """An ImageFolder tree in which the first image of each class is the validation split too."""
    for index, (image, label) in enumerate(zip(images_NCHW, labels_N.tolist(), strict=True)):
        for split in ("train", "val") if index == 0 or labels_N[index - 1] != label else ("train",):
            place = folder / split / f"class{label:05d}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(place / f"{index:07d}.jpg", quality=90)


def agreement(ours: Statistics, theirs: tuple[list[torch.Tensor], Any, Any]) -> dict[str, float]:
    """Relative distances of features, means and (batch-averaged) variances, of the layer that is worst.

    Of as many classes, the first, as the plain loop did.
    """
    features, means, variances = theirs
    columns, part = range(len(ours.layers)), len(features)
    return {
        "features": relative(ours.features_ND[ours.labels_N < part], torch.cat(features)),
        "mean": max(
            relative(ours.layers[layer].mean_CF[:part], torch.stack([one[layer] for one in means])) for layer in columns
        ),
        "variance": max(
            relative(ours.layers[layer].var_CF[:part], torch.stack([one[layer] for one in variances]))
            for layer in columns
        ),
    }


def measure(options: Options) -> dict[str, Any]:
    """Figures of the whole stage; with ``--source jpeg`` both sides decode, the product once."""
    config = settings(options)
    # The baseline has a network of its own: the product may change the layout of its weights in memory.
    network, plain = teacher(options), teacher(options)
    images_NCHW, labels_N = real_images(options)
    count = len(labels_N)
    with ExitStack() as stack:
        if options.source == "jpeg":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_jpegs(folder, images_NCHW, labels_N)
            values = {"dataset": "imagefolder", "path": str(folder), "workers": options.threads}
            config = config.model_copy(update={"data": config.data.model_copy(update=values)})
            load: Loader = file_loader(folder, options.resolution, options.workers)

            def ours() -> Statistics:
                decoded = load_dataset(config.data, options.seed, options.device)
                return product(config, network, decoded, options.device)
        else:
            data = dataset(options)
            load = memory_loader(images_NCHW, labels_N, options.workers)
            ours = partial(product, config, network, data, options.device)
        part = min(PART, options.classes) if options.device.type == "cuda" else options.classes
        sides = {"baseline": lambda: survey(plain, load, part, options.device), "product": ours}
        averaged = config.statistics.model_copy(update={"variance": "batch-averaged", "loading_batch": LOADING_BATCH})
        seen = dataset(options) if options.source == "memory" else load_dataset(config.data, 0, options.device)
        theirs, agreed = survey(plain, load, part, options.device), dict[str, float]()
        for suffix, one in (("", averaged), ("_fp32", averaged.model_copy(update={"precision": "fp32"}))):
            alike = config.model_copy(update={"statistics": one})
            near = agreement(product(alike, network, seen, options.device), theirs)
            agreed |= {f"{name}{suffix}": value for name, value in near.items()}
        del seen
        bf16 = computes_in_bf16(config.precision_of("statistics"), options.device.type)
        found = compared(options, sides, count, "images", brief_units=count, bf16=bf16)
        of_part(found, options.classes / part, count)
        found["baseline_classes_timed"] = part
        if options.device.type == "cuda" and options.source == "memory":
            found["one_pass_images_per_second"] = found["rate"]["product"]
    return {**found, "agreement": agreed, "target": ">= 3; from device memory on a large GPU >= 25,000 images/s"}


def repetition(options: Options) -> tuple[Callable[[], object], float]:
    """One repetition of the product, and its images."""
    config, network, data = settings(options), teacher(options), dataset(options)
    return (lambda: product(config, network, data, options.device)), len(data.train)
