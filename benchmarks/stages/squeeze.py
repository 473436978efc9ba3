"""Training of the teacher: the product's stage from images on the device against a loader that crops each image."""

from __future__ import annotations

import copy
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import transforms

from benchmarks.baselines import squeeze as plain_squeeze
from benchmarks.harness.comparison import compared, relative
from benchmarks.harness.options import Options
from benchmarks.harness.problem import MEAN, STD, dataset, fresh_run, real_images, settings, validation
from benchmarks.harness.timing import repeated
from engine import models
from engine.config import RunConfig
from engine.data import Dataset
from engine.data.source import ResidentSource
from engine.devices import computes_in_bf16
from engine.models.placement import on_device
from engine.squeeze import squeeze


def product(options: Options, config: RunConfig, data: Dataset, network: nn.Module) -> None:
    """The stage in a run directory of its own."""
    with fresh_run(options, config) as ctx:
        squeeze(ctx, data, on_device(network, options.device), "measurement")


def beginning(options: Options) -> nn.Module:
    """A network with its first weights."""
    network = models.build(options.arch, options.classes, options.resolution)
    models.initialise(network, options.seed, "teacher")
    return network.to(options.device)


def agreement(options: Options, data: Dataset, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> dict[str, float]:
    """How far the weights' change by one step on whole images is apart: a step of 32 images, in whatever order."""
    few = torch.arange(len(labels_N))[:: max(1, len(labels_N) // 32)][:32]
    config = settings(options, squeeze={"epochs": 1, "batch_size": len(few), "crop_min": 1.0, "flip": False})
    start = beginning(options)
    ours, theirs = copy.deepcopy(start), copy.deepcopy(start)
    part = _part(data, images_NCHW[few], labels_N[few], options.device)
    product(options, config, part, ours)
    cropped = plain_squeeze.Cropped(images_NCHW[few], labels_N[few], MEAN, STD, 1.0, flip=False)
    with tempfile.TemporaryDirectory() as folder:
        plain_squeeze.train(theirs, cropped, len(few), 1, config.squeeze.lr, Path(folder), options.device, 0)
    before = torch.cat([value.detach().flatten() for value in start.parameters()])
    moved = [torch.cat([value.detach().flatten() for value in one.parameters()]) - before for one in (ours, theirs)]
    return {"step": relative(moved[0], moved[1])}


def _part(data: Dataset, images_NCHW: torch.Tensor, labels_N: torch.Tensor, device: torch.device) -> Dataset:
    return replace(data, train=ResidentSource(images_NCHW, labels_N, device))


def measure(options: Options) -> dict[str, Any]:
    """Figures of the stage, checkpoints and evaluation included."""
    config = settings(options, squeeze={"epochs": options.iterations, "batch_size": max(2, options.batch)})
    data = dataset(options)
    images_NCHW, labels_N = real_images(options)
    cropped = plain_squeeze.Cropped(images_NCHW, labels_N, MEAN, STD, config.squeeze.crop_min)
    held_out = validation(data)
    normalise = transforms.Normalize(MEAN, STD)
    with tempfile.TemporaryDirectory() as folder:

        def plain() -> None:
            plain_squeeze.train(
                beginning(options), cropped, options.batch, options.iterations, config.squeeze.lr, Path(folder),
                options.device, options.workers,
                lambda network: plain_squeeze.top1(network, *held_out, normalise, options.device),
            )  # fmt: skip

        sides = {"baseline": plain, "product": lambda: product(options, config, data, beginning(options))}
        units = len(labels_N) * options.iterations
        bf16 = computes_in_bf16(config.run.precision, options.device.type)
        found = compared(options, sides, units, "images", brief_units=units, bf16=bf16)
    if options.device.type == "cuda":
        longer = settings(options, squeeze={"epochs": 2 * options.iterations, "batch_size": max(2, options.batch)})
        twice = repeated(lambda: product(options, longer, data, beginning(options)), options.repeats, options.device)
        further = statistics.median(twice) - found["seconds"]["product"]["median"]
        # Without what a run does once, which is most of the time of so few steps.
        found["images_per_second_of_further_epochs"] = round(units / max(further, 1e-9), 3)
    return {
        **found,
        "agreement": agreement(options, data, images_NCHW, labels_N),
        "target": ">= 10,000 images/s at 224 px on a large GPU",
    }


def repetition(options: Options) -> tuple[Callable[[], object], float]:
    """One repetition of the product, and its images."""
    config = settings(options, squeeze={"epochs": options.iterations, "batch_size": max(2, options.batch)})
    data = dataset(options)
    return (lambda: product(options, config, data, beginning(options))), len(data.train) * options.iterations
