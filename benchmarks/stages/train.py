"""Training of the student on stored soft labels, and its evaluation: the product's stage against FKD's loop."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baselines import soft_labels
from benchmarks.harness.comparison import compared
from benchmarks.harness.options import Options
from benchmarks.harness.problem import MEAN, STD, dataset, fresh_run, settings, synthetic_set, teacher, validation
from engine import events, models
from engine.config import RunConfig
from engine.data import Dataset
from engine.devices import computes_in_bf16
from engine.models.placement import on_device
from engine.relabel import relabel
from engine.softlabels import SyntheticSet, read_soft_labels
from engine.train import train_student

Stored = Callable[[int], torch.Tensor]


def product(
    options: Options, config: RunConfig, images: SyntheticSet, student: nn.Module, data: Dataset, stored: Stored
) -> list[events.Event]:
    """The stage in a run directory of its own; the events it emitted."""
    seen: list[events.Event] = []
    with fresh_run(options, config) as ctx:
        emit = ctx.emit

        def both(event: events.Event) -> None:
            seen.append(event)
            emit(event)

        ctx.emit = both
        train_student(ctx, images, on_device(student, options.device), None, data.val, MEAN, STD, stored, "measurement")
    return seen


@contextmanager
def labelled(options: Options, config: RunConfig, images: SyntheticSet, network: nn.Module) -> Iterator[Stored]:
    """Soft labels in a run directory, and how they are read."""
    with fresh_run(options, config) as ctx:
        relabel(ctx, images, network, MEAN, STD)
        yield partial(read_soft_labels, ctx.run)


def student_of(options: Options, config: RunConfig) -> nn.Module:
    """The student as training begins with it."""
    return models.build_student(config, options.classes).to(options.device)


def agreement(options: Options, images: SyntheticSet, network: nn.Module, data: Dataset) -> dict[str, float]:
    """Mean loss of one epoch in one step of whole, unmixed images, by both; a step of all images has no order."""
    count = len(images.labels_N)
    config = settings(
        options,
        train={"epochs": 1, "batch_size": max(2, count)},
        relabel={"crop_min": 1.0, "flip": False, "mix": "none"},
    )
    start = student_of(options, config)
    with labelled(options, config, images, network) as stored:
        found = product(options, config, images, copy.deepcopy(start), data, stored)
    ours = next(float(one.loss) for one in found if isinstance(one, events.Metrics) and one.loss is not None)
    with tempfile.TemporaryDirectory() as folder:
        soft_labels.relabel(
            images.images_NCHW,
            teacher(options),
            MEAN,
            STD,
            1,
            count,
            1.0,
            Path(folder),
            options.device,
            0,
            mix=False,
            flip=False,
        )
        plain = soft_labels.Student(
            start, images.images_NCHW, validation(data), MEAN, STD, Path(folder), options.device, 0
        )
        theirs, _ = plain.run(1)
    return {"loss": float(f"{abs(ours / theirs - 1):.3g}"), "loss_product": ours, "loss_baseline": theirs}


def measure(options: Options) -> dict[str, Any]:
    """Figures of the stage; labels are made beforehand."""
    config = settings(options, train={"epochs": options.iterations, "batch_size": max(2, options.batch)})
    images, network, data = synthetic_set(options), teacher(options), dataset(options)
    agreed = agreement(options, images, network, data)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        soft_labels.relabel(
            images.images_NCHW, teacher(options), MEAN, STD, options.iterations, options.batch,
            config.relabel.crop_min, folder, options.device, options.workers,
        )  # fmt: skip
        stored = stack.enter_context(labelled(options, config, images, network))
        held_out = validation(data)

        def plain() -> None:
            student = student_of(options, config)
            soft_labels.Student(
                student, images.images_NCHW, held_out, MEAN, STD, folder, options.device, options.workers
            ).run(options.iterations)
            torch.save(student.state_dict(), folder / "student.pth")

        sides = {
            "baseline": plain,
            "product": lambda: product(options, config, images, student_of(options, config), data, stored),
        }
        units = len(images.labels_N) * options.iterations
        bf16 = computes_in_bf16(config.run.precision, options.device.type)
        found = compared(options, sides, units, "image-epochs", brief_units=units, bf16=bf16)
    return {**found, "agreement": agreed, "target": "no figure is set"}


def repetition(options: Options) -> tuple[Callable[[], object], float]:
    """One repetition of the product, and its image-epochs."""
    config = settings(options, train={"epochs": options.iterations, "batch_size": max(2, options.batch)})
    images, network, data = synthetic_set(options), teacher(options), dataset(options)
    with labelled(options, config, images, network) as read:
        stored = [read(epoch).clone() for epoch in range(options.iterations)].__getitem__
    units = len(images.labels_N) * options.iterations
    return (lambda: product(options, config, images, student_of(options, config), data, stored)), units
