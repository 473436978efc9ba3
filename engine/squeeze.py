"""Squeeze: train the teacher on the real images as torchvision's scripts do (random crops and flips, SGD).

By default without what those offer besides: automatic augmentation, erasing, mixing, an average of the weights.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from engine import events
from engine.augment import draw_views
from engine.averaging import average_of, restore_average, state_of
from engine.checkpoints import DAMAGE, Slots, capture, read, restore, write
from engine.compiling import Trained, compiled_training
from engine.config import SqueezeConfig
from engine.context import Context
from engine.data import Dataset
from engine.errors import NonFiniteLoss, Stopped
from engine.evaluate import evaluate
from engine.memory import fits, training_failure
from engine.policies import mixed, teacher_inputs
from engine.randomness import derive_seed, permutation


def learning_rate(config: SqueezeConfig, step: int, steps_per_epoch: int) -> float:
    """Rate of a step: linear warm-up, then along a cosine to 0 step by step, or falling by ``gamma`` between epochs."""
    warmup, total = config.warmup_epochs * steps_per_epoch, config.epochs * steps_per_epoch
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule != "cosine":
        every = config.step_epochs if config.schedule == "step" else 1
        return config.lr * config.gamma ** ((step - warmup) // steps_per_epoch // every)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def make_optimiser(config: SqueezeConfig, network: nn.Module) -> torch.optim.Optimizer:
    """What ``squeeze.optimizer`` names, over all parameters, each read and written once a step; RMSprop, which has
    torchvision's constants, goes over them several times.
    """
    parameters = list(network.parameters())
    decay = config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=decay, fused=True)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=decay, eps=0.0316, alpha=0.9
        )
    return torch.optim.SGD(
        parameters,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=decay,
        nesterov=config.optimizer == "nesterov",
        fused=True,
    )


def squeeze(ctx: Context, dataset: Dataset, network: nn.Module, work: str) -> dict[str, float]:
    """Train in place, going on from the last checkpoint of this ``work``: an epoch, and the step within it.

    The teacher is the last epoch's network or, with ``squeeze.keep = "best"``, that of the highest top-1; with
    ``squeeze.ema`` the exponential mean of the weights over the steps takes the network's place. Of a group each rank
    takes its part of every batch: batch and learning rate are what they are without one, BatchNorm sees the part, or
    with ``run.sync_bn`` the whole.

    Returns top1 and top5 of the teacher and best_top1, in percent (of a group, in the first rank). Raises Stopped,
    NonFiniteLoss, OutOfMemory, RankLost.
    """
    config, device, source, group = ctx.config.squeeze, ctx.device, dataset.train, ctx.group
    optimiser = make_optimiser(config, network)
    averaged = average_of(network, config.ema)
    judged = network if averaged is None else averaged.module
    parallel = group.parallel(network, ctx.config.run.sync_bn)
    slots = Slots(ctx.run.checkpoints, "squeeze", work)
    best = _Best(ctx, work)
    # A last batch of one image, which BatchNorm cannot take, is left out of the epoch.
    sizes = [size for size in _batch_sizes(len(source), config.batch_size) if size > 1]
    seen, batch = len(source) * config.epochs, min(config.batch_size, len(source))
    trained = compiled_training(ctx, "squeeze", network, parallel, group.count, seen, batch)
    first, step, top1, top5 = 0, 0, 0.0, 0.0
    loss_sum = torch.zeros((), device=device)

    def where(state: dict[str, Any]) -> str:
        part = f" and {state['step']} of {len(sizes)} steps" if state["step"] else ""
        return f"squeeze, {state['epoch']} of {config.epochs} epochs{part}"

    def save(epoch: int, step: int) -> None:
        state = {"epoch": epoch, "step": step, "top1": top1, "top5": top5, "best_top1": best.top1}
        total = group.sum(loss_sum)
        if group.leads:
            best.keep()
            tensors = capture(network, optimiser) | state_of(averaged) | {"loss_sum": total}
            ctx.save(slots, where(state), tensors, **state)

    saved = ctx.load(slots, where)
    if saved is not None and best.agrees(saved.state):
        restore(network, optimiser, saved.tensors)
        restore_average(averaged, saved.tensors)
        if group.leads:  # the sum over ranks goes on in one of them
            loss_sum.copy_(saved.tensors["loss_sum"])
        first, step, top1, top5 = (saved.state[key] for key in ("epoch", "step", "top1", "top5"))
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
        network.train()
        parallel.train()
        batches = list(order_N[: sum(sizes)].split(config.batch_size))[step:]
        parts = [group.part(len(batch)) for batch in batches]
        left = [batch[rows] for batch, (rows, _) in zip(batches, parts, strict=True)]
        for index, images, batch, (_, weight) in zip(left, source.batches(left), batches, parts, strict=True):
            for options in optimiser.param_groups:
                options["lr"] = learning_rate(config, epoch * len(sizes) + step, len(sizes))
            inputs = teacher_inputs(
                config, images, views[index], index.tolist(), dataset.mean, dataset.std, ctx.config.seed, epoch
            )
            mixing = derive_seed(ctx.config.seed, "squeeze-mix", epoch, step, group.number)
            labels = source.labels_N[index].to(device, non_blocking=True)
            inputs, labels = mixed(config, inputs, labels, dataset.outputs, mixing)
            counted = weight * len(batch) / group.count
            # Dropout draws from the global generators: a step is the same, whoever did those before it.
            torch.manual_seed(derive_seed(ctx.config.seed, "dropout", "teacher", epoch, step, group.number))
            work_of_step = partial(
                _train_step, trained, optimiser, inputs, labels, config.label_smoothing, loss_sum, weight, counted,
                ctx.bf16,
            )  # fmt: skip
            with group.collective():
                if not fits(work_of_step):
                    raise training_failure("squeeze.batch_size", network, len(index), dataset.resolution, device)
            if averaged is not None and step % config.ema_every == 0:
                _update(averaged, network, epoch < config.warmup_epochs)
            step += 1
            ctx.progress("squeeze", epoch * len(sizes) + step, config.epochs * len(sizes), "steps")
            stop, due = group.any(ctx.interrupted(), group.leads and ctx.checkpoint_due())
            if stop or due:
                save(epoch, step)
            if stop:
                raise Stopped("stopped in squeeze")
        mean_loss = float(group.sum(loss_sum)) / sum(sizes)  # CPU–GPU synchronisation, once an epoch
        if not math.isfinite(mean_loss):
            raise NonFiniteLoss(f"the teacher's loss became {mean_loss} in epoch {epoch + 1}", "lower squeeze.lr")
        if group.leads:
            top1, top5 = evaluate(ctx, "squeeze", judged, dataset.val, dataset.mean, dataset.std)
            best.see(judged, epoch + 1, top1, top5)
            ctx.emit(
                events.Metrics(
                    stage="squeeze",
                    epoch=epoch + 1,
                    epochs=config.epochs,
                    loss=events.numbers([mean_loss])[0],
                    top1=top1,
                    top5=top5,
                    lr=learning_rate(config, (epoch + 1) * len(sizes) - 1, len(sizes)),
                )
            )
        group.meet("squeeze")  # not in an exchange, where a request to stop would not be heard
        step = 0
        loss_sum.zero_()
        if epoch + 1 == config.epochs:
            save(epoch + 1, 0)
    if averaged is not None:
        network.load_state_dict(judged.state_dict())
    if config.keep == "best" and group.leads:
        top1, top5 = best.take(network)
    group.copy_of_first(network)
    return {"top1": top1, "top5": top5, "best_top1": best.top1}


def _train_step(
    trained: Trained,
    optimiser: torch.optim.Optimizer,
    inputs_BCHW: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float,
    loss_sum: torch.Tensor,
    weight: float,
    counted: float,
    bf16: bool,
) -> None:
    """One step on the mean loss times ``weight``; adds the mean times the images it is ``counted`` for.

    ``labels`` are classes (B,) or, of mixed images, their shares (B, C).
    """
    with torch.autocast(inputs_BCHW.device.type, torch.bfloat16, enabled=bf16):
        logits = trained(inputs_BCHW)
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    optimiser.zero_grad(set_to_none=True)
    (loss * weight).backward()
    optimiser.step()
    loss_sum += loss.detach() * counted


def _update(averaged: AveragedModel, network: nn.Module, copies: bool) -> None:
    """Take the network into the average, which after a step of the warm-up is the network itself."""
    averaged.update_parameters(network)
    if copies:
        averaged.n_averaged.zero_()


class _Best:
    """The network of the highest top-1 so far: held in memory, and with each checkpoint in ``teacher-best.ckpt``."""

    def __init__(self, ctx: Context, work: str) -> None:
        self._ctx = ctx
        self._work = work
        self._path = ctx.run.checkpoints / "teacher-best.ckpt"
        self._held: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
        self.top1 = 0.0

    def agrees(self, saved: dict[str, Any]) -> bool:
        """Whether the best of the epochs done by a checkpoint is there where it is needed; said where it is not."""
        if self._ctx.config.squeeze.keep == "best" and saved["epoch"] > 0:
            try:
                state = read(self._path).state
            except DAMAGE as error:
                self._ctx.warn(f"{self._path.name} is damaged ({error}); squeeze begins again")
                return False
            if state.get("work") != self._work:
                self._ctx.warn(f"{self._path.name} is of other work than this run's; squeeze begins again")
                return False
        self.top1 = saved["best_top1"]
        return True

    def see(self, network: nn.Module, epoch: int, top1: float, top5: float) -> None:
        if top1 > self.top1 or epoch == 1:
            self.top1 = max(self.top1, top1)
            tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            self._held = tensors, {"epoch": epoch, "top1": top1, "top5": top5, "work": self._work}

    def keep(self) -> None:
        """Write what is held, before the checkpoint that counts on it."""
        if self._held is not None:
            write(self._path, *self._held)
            self._held = None

    def take(self, network: nn.Module) -> tuple[float, float]:
        """Make the network the best one; its top-1 and top-5."""
        best = read(self._path)
        network.load_state_dict(best.tensors)
        return best.state["top1"], best.state["top5"]


def _batch_sizes(count: int, batch_size: int) -> list[int]:
    return [min(batch_size, count - start) for start in range(0, count, batch_size)]
