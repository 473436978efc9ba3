"""Relabel: the teacher's logits of every mixed view of every epoch, stored (fast knowledge distillation)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from engine.artifacts import key_of
from engine.checkpoints import Slots
from engine.context import Context
from engine.errors import DiskFull, NonFiniteLoss, Stopped
from engine.faults import is_full
from engine.mixing import EpochPlan, Kept, Pictures, draw_plan
from engine.rundir import write_whole
from engine.softlabels import SyntheticSet, block_bytes, block_is_whole, block_path, blocks


def teacher_logits(teacher: nn.Module, plan: EpochPlan, source_NCHW: Pictures, rows: slice, bf16: bool) -> torch.Tensor:
    """Logits (B, C) float32 of the positions ``rows``. The teacher must be in eval mode."""
    device = source_NCHW.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits: torch.Tensor = teacher(plan.images(source_NCHW, rows))
    return logits.float()


def relabel(
    ctx: Context, synthetic: SyntheticSet, teacher: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Write the soft labels of all epochs; whole files of the same work are kept. Raises Stopped, RunFailure, OSError.

    Forward batches are fixed (``relabel.batch_size``), so the stored bytes depend on nothing but the configuration.
    """
    config = ctx.config
    source_NCHW = Kept(synthetic.images_NCHW.to(ctx.device), mean, std)
    count = len(source_NCHW)
    epochs, classes = config.train.epochs, int(synthetic.labels_N.max()) + 1
    teachers = {"committee": list(config.teacher.committee)} if config.teacher.committee else {}
    key = key_of(
        **teachers,
        images=hashlib.sha256(synthetic.images_NCHW.numpy().tobytes()).hexdigest(),
        relabel=config.relabel.model_dump(mode="json"),
        seed=config.student_seed,
    )
    teacher.eval()
    every = blocks(epochs, count, classes)
    mine = [every[index] for index in ctx.group.shares([len(block) for block in every])]
    done, total = 0, sum(map(len, mine))

    def report(rows: int) -> None:
        ctx.progress("relabel", done + rows, total, "epochs")

    for block in mine:
        path = block_path(ctx.run, block)
        if not block_is_whole(path, (len(block), count, classes), key):
            name = "relabel" if ctx.group.count == 1 else f"relabel-{ctx.group.number}"
            slots = Slots(ctx.run.checkpoints, name, f"{key}-{block.start}")
            logits_ENC = _label_block(ctx, source_NCHW, teacher, block, classes, slots, report)
            try:
                write_whole(path, block_bytes(logits_ENC, key, config.relabel))
            except OSError as error:
                if not is_full(error):
                    raise
                raise DiskFull(
                    f"the disk became full at soft labels {path}: {error.strerror}",
                    "free some space and resume, or set relabel.storage = 'online'",
                ) from None
            slots.clear()
        done += len(block)
        report(0)
        ctx.stop_if_asked("relabel")
    ctx.group.meet("relabel")


def _label_block(
    ctx: Context,
    source_NCHW: Pictures,
    teacher: nn.Module,
    block: range,
    classes: int,
    slots: Slots,
    report: Callable[[int], None],
) -> torch.Tensor:
    """Logits (E, N, C) float16 of a block of epochs; a checkpoint holds those of the epochs and images so far."""
    config, count = ctx.config.relabel, len(source_NCHW)
    logits_ENC = torch.zeros(len(block), count, classes, dtype=torch.float16)

    def where(state: dict[str, Any]) -> str:
        return f"relabel, epoch {block[state['row']] + 1}, {state['stop']} of {count} images"

    saved = ctx.load(slots, where)
    first_row, begin = 0, 0
    if saved is not None:
        first_row, begin = saved.state["row"], saved.state["stop"]
        logits_ENC.copy_(saved.tensors["logits_ENC"])
    device_NC = logits_ENC[first_row].to(ctx.device, copy=True)  # taken to the host once an epoch, or for a checkpoint
    for row in range(first_row, len(block)):
        plan = draw_plan(count, source_NCHW.shape[-1], config, ctx.config.student_seed, block[row])
        for start in range(begin, count, config.batch_size):
            stop = min(start + config.batch_size, count)
            work = partial(_label_images, teacher, plan, source_NCHW, device_NC, ctx.bf16)
            ctx.cut("relabel", slice(start, stop), work)
            interrupted = ctx.interrupted()
            if interrupted or ctx.checkpoint_due():
                logits_ENC[row] = device_NC
                state = {"row": row, "stop": stop}
                ctx.save(slots, where(state), {"logits_ENC": logits_ENC}, **state)
            if interrupted:
                raise Stopped("stopped in relabel")
        begin = 0
        logits_ENC[row] = device_NC
        report(row + 1)
    if not bool(torch.isfinite(logits_ENC).all()):
        raise NonFiniteLoss("soft labels became NaN or infinite", "take another teacher, or lower squeeze.lr")
    return logits_ENC


def _label_images(
    teacher: nn.Module, plan: EpochPlan, source_NCHW: Pictures, logits_NC: torch.Tensor, bf16: bool, rows: slice
) -> None:
    logits_NC[rows] = teacher_logits(teacher, plan, source_NCHW, rows, bf16).half()
