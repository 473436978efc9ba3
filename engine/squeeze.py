"""Squeeze: train the teacher on the real images (SGD, cosine with linear warm-up, random crops and flips)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from engine import events
from engine.augment import apply_views, draw_views
from engine.checkpoints import Slots, capture, read, restore, write
from engine.config import SqueezeConfig
from engine.context import Context
from engine.data import Dataset, normalise
from engine.errors import NonFiniteLoss, Stopped
from engine.evaluate import evaluate
from engine.randomness import permutation


def learning_rate(config: SqueezeConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of a step: linear warm-up, then cosine to 0."""
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def squeeze(ctx: Context, dataset: Dataset, network: nn.Module) -> dict[str, float]:
    """Train in place, resuming from the last epoch's checkpoint.

    The teacher is the last epoch's network or, with ``squeeze.keep = "best"``, that of the highest top-1.
    Returns top1 and top5 of the teacher and best_top1, in percent. Raises Stopped, NonFiniteLoss.
    """
    config, device, source = ctx.config.squeeze, ctx.device, dataset.train
    cuda = device.type == "cuda"
    if cuda:
        network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    slots = Slots(ctx.run.checkpoints, "squeeze")
    best_file = ctx.run.checkpoints / "teacher-best.ckpt"
    first, best_top1, top1, top5 = 0, 0.0, 0.0, 0.0
    saved = slots.load(lambda message: ctx.log(message, "warning"))
    if saved is not None:
        restore(network, optimiser, saved.tensors)
        first, best_top1, top1, top5 = (saved.state[key] for key in ("epoch", "best_top1", "top1", "top5"))
    # A last batch of one image, which BatchNorm cannot take, is left out of the epoch.
    sizes = [size for size in _batch_sizes(len(source), config.batch_size) if size > 1]
    for epoch in range(first, config.epochs):
        order_N = permutation(len(source), ctx.config.seed, "squeeze", epoch)
        views = draw_views(
            len(source),
            dataset.resolution,
            config.crop_min,
            config.flip,
            0,
            ctx.config.seed,
            "squeeze",
            epoch,
        )
        loss_sum = torch.zeros((), device=device)
        network.train()
        index_lists = list(order_N[: sum(sizes)].split(config.batch_size))
        for step, (index, images) in enumerate(zip(index_lists, source.batches(index_lists), strict=True)):
            labels = source.labels_N[index].to(device)
            inputs = apply_views(normalise(images, dataset.mean, dataset.std), views[index])
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, epoch * len(sizes) + step, len(sizes))
            with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
                logits = network(inputs)
            loss = functional.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            loss_sum += loss.detach() * len(index)
            ctx.progress("squeeze", epoch * len(sizes) + step + 1, config.epochs * len(sizes), "steps")
            if ctx.interrupted():
                # The epoch is not kept: it runs again from the last checkpoint, to the same bytes.
                raise Stopped("stopped in squeeze")
        mean_loss = float(loss_sum) / sum(sizes)  # CPU–GPU synchronisation, once an epoch
        if not math.isfinite(mean_loss):
            raise NonFiniteLoss(f"the teacher's loss became {mean_loss} in epoch {epoch + 1}", "lower squeeze.lr")
        top1, top5 = evaluate(network, dataset.val, dataset.mean, dataset.std, ctx.config.train.eval_batch, device)
        if top1 > best_top1 or not best_file.is_file():
            best_top1 = max(best_top1, top1)
            write(best_file, dict(network.state_dict()), {"epoch": epoch + 1, "top1": top1, "top5": top5})
        ctx.emit(
            events.Metrics(
                stage="squeeze",
                epoch=epoch + 1,
                epochs=config.epochs,
                loss=events.numbers([mean_loss])[0],
                top1=top1,
                top5=top5,
                lr=optimiser.param_groups[0]["lr"],
            )
        )
        slots.save(capture(network, optimiser), epoch=epoch + 1, best_top1=best_top1, top1=top1, top5=top5)
    if config.keep == "best":
        best = read(best_file)
        network.load_state_dict(best.tensors)
        top1, top5 = best.state["top1"], best.state["top5"]
    return {"top1": top1, "top5": top5, "best_top1": best_top1}


def _batch_sizes(count: int, batch_size: int) -> list[int]:
    return [min(batch_size, count - start) for start in range(0, count, batch_size)]
