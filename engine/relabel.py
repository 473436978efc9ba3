"""Relabel: the teacher's logits of every mixed view of every epoch, stored as float16 (fast knowledge distillation)."""

from __future__ import annotations

import hashlib

import safetensors.torch
import torch
from torch import nn

from engine.artifacts import key_of
from engine.context import Context
from engine.data import normalise
from engine.errors import RunFailure, Stopped
from engine.mixing import EpochPlan
from engine.rundir import write_whole
from engine.softlabels import SyntheticSet, block_is_whole, block_path, blocks


def teacher_logits(
    teacher: nn.Module, plan: EpochPlan, source_NCHW: torch.Tensor, rows: slice, precise: bool
) -> torch.Tensor:
    """Logits (B, C) float32 of the positions ``rows``. The teacher must be in eval mode."""
    device = source_NCHW.device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=not precise):
        logits: torch.Tensor = teacher(plan.images(source_NCHW, rows))
    return logits.float()


def relabel(
    ctx: Context, synthetic: SyntheticSet, teacher: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Write the soft labels of all epochs; whole files of the same work are kept. Raises Stopped, RunFailure.

    Forward batches are fixed (``relabel.batch_size``), so the stored bytes depend on nothing but the configuration.
    """
    config = ctx.config
    source_NCHW = normalise(synthetic.images_NCHW.to(ctx.device), mean, std)
    count, size = len(source_NCHW), source_NCHW.shape[-1]
    epochs, classes = config.train.epochs, int(synthetic.labels_N.max()) + 1
    key = key_of(
        images=hashlib.sha256(synthetic.images_NCHW.numpy().tobytes()).hexdigest(),
        relabel=config.relabel.model_dump(mode="json"),
        seed=config.seed,
    )
    teacher.eval()
    for block in blocks(epochs, count, classes):
        path = block_path(ctx.run, block)
        if not block_is_whole(path, (len(block), count, classes), key):
            logits_ENC = torch.empty(len(block), count, classes, dtype=torch.float16)
            for row, epoch in enumerate(block):
                plan = EpochPlan(count, size, config.relabel, config.seed, epoch)
                for start in range(0, count, config.relabel.batch_size):
                    rows = slice(start, min(start + config.relabel.batch_size, count))
                    precise = ctx.device.type != "cuda"
                    logits_ENC[row, rows] = teacher_logits(teacher, plan, source_NCHW, rows, precise).half().cpu()
                if ctx.interrupted():
                    raise Stopped("stopped in relabel")
                ctx.progress("relabel", epoch + 1, epochs, "epochs")
            try:
                write_whole(path, safetensors.torch.save({"logits_ENC": logits_ENC}, metadata={"key": key}))
            except OSError as error:
                raise RunFailure(
                    f"cannot write soft labels {path}: {error.strerror}",
                    "free some space and resume, or set relabel.storage = 'online'",
                ) from None
        ctx.progress("relabel", block.stop, epochs, "epochs")
