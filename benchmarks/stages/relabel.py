"""Soft labels of some epochs, written to disk: the product's stage against a loader and a pickle for each batch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baselines import soft_labels
from benchmarks.harness.comparison import compared, relative
from benchmarks.harness.options import Options
from benchmarks.harness.problem import MEAN, STD, fresh_run, settings, synthetic_set, teacher
from engine.config import RunConfig
from engine.devices import computes_in_bf16
from engine.mixing import draw_plan
from engine.models.placement import on_device
from engine.relabel import relabel
from engine.softlabels import SyntheticSet, read_soft_labels


def product(options: Options, config: RunConfig, images: SyntheticSet, network: nn.Module) -> torch.Tensor:
    """The stage in a run directory of its own; the labels of the first epoch."""
    with fresh_run(options, config) as ctx:
        relabel(ctx, images, network, MEAN, STD)
        return read_soft_labels(ctx.run, 0).clone()


def agreement(options: Options, config: RunConfig, images: SyntheticSet, network: nn.Module) -> dict[str, float]:
    """Relative distance of the stored labels of whole, unmixed images."""
    values = {"crop_min": 1.0, "flip": False, "mix": "none"}
    plain = config.model_copy(update={"relabel": config.relabel.model_copy(update=values)})
    ours = product(options, plain, images, network).float()
    with tempfile.TemporaryDirectory() as folder:
        soft_labels.relabel(
            images.images_NCHW, teacher(options), MEAN, STD, 1, options.batch, 1.0, Path(folder), options.device, 0,
            mix=False, flip=False,
        )  # fmt: skip
        stored = [torch.load(path, weights_only=False) for path in Path(folder).glob("epoch_0/*.tar")]
    theirs = torch.zeros_like(ours)
    for index, *_, logits in stored:
        theirs[index] = logits.float()
    plan = draw_plan(len(ours), options.resolution, plain.relabel, plain.student_seed, 0)
    return {"logits": relative(ours, theirs[plan.order_N])}


def measure(options: Options) -> dict[str, Any]:
    """Figures of the stage."""
    config = settings(options, train={"epochs": options.iterations})
    images, network, alone = synthetic_set(options), teacher(options), teacher(options)
    crop_min, count = config.relabel.crop_min, len(images.labels_N)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def plain() -> None:
            soft_labels.relabel(
                images.images_NCHW, alone, MEAN, STD, options.iterations, options.batch, crop_min, folder,
                options.device, options.workers,
            )  # fmt: skip

        sides = {
            "baseline": plain,
            "product": lambda: product(options, config, images, on_device(network, options.device)),
        }
        units = count * options.iterations
        bf16 = computes_in_bf16(config.run.precision, options.device.type)
        found = compared(options, sides, units, "image-epochs", brief_units=units, bf16=bf16)
        return {**found, "agreement": agreement(options, config, images, network), "target": "no figure is set"}


def repetition(options: Options) -> tuple[Callable[[], object], float]:
    """One repetition of the product, and its image-epochs."""
    config = settings(options, train={"epochs": options.iterations})
    images, network = synthetic_set(options), teacher(options)
    return (lambda: product(options, config, images, network)), len(images.labels_N) * options.iterations
