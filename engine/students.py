"""Students of several architectures, each trained on the same set: the cross-architecture table.

The first student is the run's own, whose accuracies are the run's; the others stand beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from engine import models
from engine.config import RunConfig
from engine.context import Context
from engine.models.checkpoint import save_safetensors
from engine.models.placement import on_device
from engine.space import CHECKPOINTS, COPIES
from engine.train import Place, StudentResult

Train = Callable[[nn.Module, Place], StudentResult]


@dataclass(frozen=True)
class Trained:
    """One row of the table: architecture, its parameters, what it reached (percent), seconds of this process."""

    arch: str
    parameters: int
    result: StudentResult
    seconds: float


def parameters_of(network: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(parameter.numel() for parameter in network.parameters())


def check(config: RunConfig, outputs: int) -> int:
    """Build every student once, so that one that cannot be is refused before any work.

    Returns the bytes that those beside the first leave on disk at most. Raises ConfigError.
    """
    total = 0
    for index, arch in enumerate(config.student_archs):
        network = models.build_student(config, outputs, arch)
        if index:
            total += (CHECKPOINTS * COPIES + 1) * 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    return total


def train_all(ctx: Context, outputs: int, train: Train) -> list[Trained]:
    """Train every student by ``train(student, place)`` and keep it in the run's ``student`` folder, the first one as
    ``student.safetensors``. Raises Stopped, NonFiniteLoss, OutOfMemory, OSError.
    """
    archs = ctx.config.student_archs
    rows = []
    alone = ctx.config.run.student_on == "first"
    for index, arch in enumerate(archs):
        if alone and index % ctx.group.count != ctx.group.number:
            continue  # another rank's
        started = time.monotonic()
        student = on_device(models.build_student(ctx.config, outputs, arch), ctx.device)
        place = Place(index, len(archs), arch if len(archs) > 1 else "")
        result = train(student, place)
        name = f"student-{index + 1}-{arch}" if index else "student"
        if alone or ctx.group.leads:
            facts = {"arch": arch, "top1": str(result.top1)}
            save_safetensors(student, ctx.run.student / f"{name}.safetensors", facts)
        rows.append(Trained(arch, parameters_of(student), result, time.monotonic() - started))
        if place.name:
            ctx.log(f"student {arch}: top-1 {result.top1:.2f} % in the last epoch, best {result.best_top1:.2f} %")
    if ctx.group.count == 1 or not alone:
        return rows
    found = [Trained(**{**row, "result": StudentResult(**row["result"])}) for row in _of_all_ranks(ctx, rows)]
    return sorted(found, key=lambda row: archs.index(row.arch))


def _of_all_ranks(ctx: Context, rows: Sequence[Trained]) -> list[dict[str, Any]]:
    return [row for rows in ctx.group.gathered("students", [asdict(row) for row in rows]) for row in rows]


def facts(rows: Sequence[Trained]) -> list[dict[str, Any]]:
    """The table as plain values for the report; accuracies in percent."""
    return [
        {
            "arch": row.arch,
            "parameters": row.parameters,
            "top1": row.result.top1,
            "top5": row.result.top5,
            "best_top1": row.result.best_top1,
            "best_epoch": row.result.best_epoch,
            "seconds": round(row.seconds, 3),
        }
        for row in rows
    ]
