"""Training of the student on the synthetic images, and its accuracy on real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from engine import events
from engine.averaging import average_of, restore_average, state_of
from engine.checkpoints import Slots, capture, restore
from engine.compiling import compiled_training
from engine.config import TrainConfig
from engine.context import Context
from engine.data import ImageSource
from engine.data.source import ResidentSource
from engine.distributed.group import Group
from engine.errors import NonFiniteLoss, Stopped
from engine.evaluate import evaluate
from engine.memory import fits, training_failure
from engine.mixing import Decoded, EpochPlan, draw_plan
from engine.randaugment import RandAugmented
from engine.randomness import derive_seed
from engine.relabel import teacher_logits
from engine.softlabels import SyntheticSet, pictures_of
from engine.student_loss import hard_loss, soft_loss


@dataclass(frozen=True)
class Place:
    """Which of several students one is, and what its figures are filed under; ``name`` is empty for the only one."""

    index: int = 0
    count: int = 1
    name: str = ""

    @property
    def stage(self) -> str:
        """Of the metrics: the first student's are those of the run, the others' stand beside them."""
        return "cross" if self.index else "train"


ALONE = Place()


@dataclass(frozen=True)
class StudentResult:
    """Accuracies in percent of the last epoch, and of the best evaluated one, reported as such."""

    top1: float
    top5: float
    best_top1: float
    best_epoch: int


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Rate of an epoch: linear warm-up, then to 0 along a cosine or a line, along the first half of a cosine's arc,
    or constant.
    """
    warmup = config.warmup_epochs
    if epoch < warmup:
        return config.lr * (epoch + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    done, epochs = epoch - warmup, max(1, config.epochs - warmup)
    if config.schedule == "linear":
        return config.lr * (1 - done / epochs)
    arc = math.pi * done / epochs
    return config.lr * 0.5 * (1 + math.cos(arc if config.schedule == "cosine" else arc / 2))


def make_optimiser(config: TrainConfig, student: nn.Module) -> torch.optim.Optimizer:
    """What ``train.optimizer`` names, over all of a student's parameters, each read and written once a step."""
    parameters = list(student.parameters())
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def batch_rows(count: int, batch_size: int) -> list[slice]:
    """Positions of each step; a last batch of one image, which BatchNorm cannot take, joins the one before."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def parts_of(rows: slice, pieces: int) -> list[slice]:
    """Consecutive parts of a step's positions, as equal as can be."""
    count = rows.stop - rows.start
    bounds = [rows.start + count * piece // pieces for piece in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def pieces_of(batch: int, config: TrainConfig, ranks: int) -> int:
    """In how many parts every rank computes its share of a batch: ``train.accumulate``, of a last, smaller batch as
    many as such parts make, and no more than leave BatchNorm two images of each.
    """
    full = math.ceil(batch * config.accumulate / config.batch_size)
    least = batch // ranks if batch >= 2 * ranks else batch
    return max(1, min(config.accumulate, full, least // 2))


def train_student(
    ctx: Context,
    synthetic: SyntheticSet,
    student: nn.Module,
    teacher: nn.Module | None,
    val: ImageSource,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    stored: Callable[[int], torch.Tensor] | None,
    work: str,
    plans: Callable[[int], EpochPlan] | None = None,
    judge: Callable[[nn.Module], tuple[float, float]] | None = None,
    place: Place = ALONE,
) -> StudentResult:
    """Train in place. Soft labels come from ``stored(epoch)`` or, online, from ``teacher``; with
    ``train.labels = "hard"`` the classes are used. With ``train.ema`` the exponential mean of the weights over the
    steps is what is evaluated, and what the student is in the end. ``plans(epoch)`` gives views and mixing that are
    not drawn here (somebody else's labels); ``judge`` evaluates where classes alone do not (clusters); ``place`` says
    which of several students this is. With ``train.accumulate`` each step's gradient is gathered over parts of its
    batch. With ``run.student_on = "all"`` every rank of a group takes its part of each batch; the result is the first
    one's.

    Goes on from the last checkpoint of this ``work``: an epoch, and the step within it. Raises Stopped,
    NonFiniteLoss, OutOfMemory.
    """
    config = ctx.config.train
    device = ctx.device
    augmented = _augmented(ctx, synthetic)
    source_NCHW = (
        pictures_of(synthetic, device, mean, std)
        if augmented is None
        else Decoded(augmented, synthetic.images_NCHW.shape[-1], device, mean, std)
    )
    count, size = len(source_NCHW), source_NCHW.shape[-1]
    labels_N = synthetic.labels_N.to(device)
    weighted = synthetic.weighted or ctx.config.barycenter.weights == "optimized"
    weights_N = synthetic.weights_N.to(device) if weighted else None
    optimiser = make_optimiser(config, student)
    team = ctx.group if ctx.config.run.student_on == "all" else Group()
    parallel = team.parallel(student, ctx.config.run.sync_bn)
    averaged = average_of(student, config.ema)
    judged = student if averaged is None else averaged.module
    steps = batch_rows(count, config.batch_size)
    piece = parts_of(steps[0], pieces_of(steps[0].stop, config, team.count))[0]
    trained = compiled_training(
        ctx, "train", student, parallel, team.count, count * config.epochs, piece.stop - piece.start
    )
    first, step, best_top1, best_epoch, top1, top5 = 0, 0, 0.0, 0, 0.0, 0.0
    loss_sum = torch.zeros((), device=device)
    slots = Slots(ctx.run.checkpoints, f"train-{place.index}" if place.index else "train", work)

    def where(state: dict[str, Any]) -> str:
        part = f" and {state['step']} of {len(steps)} steps" if state["step"] else ""
        of = f" of {place.name}" if place.name else ""
        return f"train{of}, {state['epoch']} of {config.epochs} epochs{part}"

    def save(epoch: int, step: int) -> None:
        state = {
            "epoch": epoch, "step": step, "top1": top1, "top5": top5, "best_top1": best_top1, "best_epoch": best_epoch,
        }  # fmt: skip
        total = team.sum(loss_sum)
        if team.leads:
            tensors = capture(student, optimiser) | state_of(averaged) | {"loss_sum": total}
            ctx.save(slots, where(state), tensors, **state)

    def train_step(plan: EpochPlan, logits_NC: torch.Tensor | None, batch: slice) -> None:
        own, share = team.part(batch.stop - batch.start)
        rows = slice(batch.start + own.start, batch.start + own.stop)
        optimiser.zero_grad(set_to_none=True)
        for part in parts_of(rows, pieces_of(batch.stop - batch.start, config, team.count)):
            loss = loss_of(plan, logits_NC, rows, part) * ((part.stop - part.start) / (rows.stop - rows.start))
            (loss * share).backward()
            loss_sum.add_(loss.detach() * (share * (batch.stop - batch.start) / team.count))
        optimiser.step()
        if averaged is not None:
            averaged.update_parameters(student)

    def loss_of(plan: EpochPlan, logits_NC: torch.Tensor | None, step_rows: slice, rows: slice) -> torch.Tensor:
        """Mean loss of the images at ``rows``; their weights count against the mean weight of ``step_rows``."""
        order = plan.order_N[rows].to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=ctx.bf16):
            output = trained(plan.images(source_NCHW, rows)).float()
        classes = (
            labels_N[order],
            labels_N[plan.partner_N[rows].to(device, non_blocking=True)],
            plan.lam_N[rows].to(device, non_blocking=True),
        )
        if config.labels == "hard":
            return hard_loss(output, *classes)
        if logits_NC is not None:
            target = logits_NC[rows].float()
        elif teacher is not None:
            target = teacher_logits(teacher, plan, source_NCHW, rows, ctx.bf16)
        else:
            raise ValueError("soft labels need stored logits or a teacher")
        weights = None if weights_N is None else weights_N[order]
        loss = soft_loss(config.loss, output, target, config.temperature, weights)
        if config.loss == "mse-gt":
            loss = loss + config.gt_weight * hard_loss(output, *classes, weights)
        if weights_N is not None and rows != step_rows:
            loss = loss * (weights_N[order].mean() / weights_N[plan.order_N[step_rows].to(device)].mean())
        return loss

    saved = ctx.load(slots, where)
    if saved is not None:
        restore(student, optimiser, saved.tensors)
        restore_average(averaged, saved.tensors)
        if team.leads:  # the sum over ranks goes on in one of them
            loss_sum.copy_(saved.tensors["loss_sum"])
        first, step, best_top1, best_epoch = (saved.state[key] for key in ("epoch", "step", "best_top1", "best_epoch"))
        top1, top5 = saved.state["top1"], saved.state["top5"]
    for epoch in range(first, config.epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, epoch)
        plan = plans(epoch) if plans else draw_plan(count, size, ctx.config.relabel, ctx.config.student_seed, epoch)
        logits_NC = stored(epoch).to(device) if stored and config.labels == "soft" else None
        if augmented is not None:
            augmented.epoch = epoch
        student.train()
        parallel.train()
        for rows in steps[step:]:
            seed_step(ctx, "student", epoch, step)
            with team.collective():
                if not fits(partial(train_step, plan, logits_NC, rows)):
                    images = rows.stop - rows.start
                    raise training_failure("train.batch_size", student, images, size, device, config.accumulate)
            step += 1
            stop, due = team.any(ctx.interrupted(), team.leads and ctx.checkpoint_due())
            if stop or due:
                save(epoch, step)
            if stop:
                raise Stopped("stopped in train")
        mean_loss = float(team.sum(loss_sum)) / count  # CPU–GPU synchronisation, once an epoch
        if not math.isfinite(mean_loss):
            raise NonFiniteLoss(f"the student's loss became {mean_loss} in epoch {epoch + 1}", "lower train.lr")
        evaluated = (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs
        if evaluated and team.leads:
            top1, top5 = judge(judged) if judge else evaluate(ctx, "train", judged, val, mean, std)
            if top1 > best_top1:
                best_top1, best_epoch = top1, epoch + 1
        team.meet("train")  # not in an exchange, where a request to stop would not be heard
        emit = ctx.emit if team.leads else _nothing
        emit(
            events.Metrics(
                stage=place.stage,
                student=place.name,
                epoch=epoch + 1,
                epochs=config.epochs,
                loss=events.numbers([mean_loss])[0],
                top1=top1 if evaluated else None,
                top5=top5 if evaluated else None,
                lr=optimiser.param_groups[0]["lr"],
            )
        )
        done = place.index * config.epochs + epoch + 1
        ctx.progress("train", done, place.count * config.epochs, "epochs", place.name)
        step = 0
        loss_sum.zero_()
        if epoch + 1 == config.epochs:
            save(epoch + 1, 0)
    if averaged is not None:
        student.load_state_dict(judged.state_dict())
    team.copy_of_first(student)
    student.eval()
    return StudentResult(top1, top5, best_top1, best_epoch)


def _nothing(_event: events.Event) -> None:
    """The figures of an epoch are told by one rank for all."""


def seed_step(ctx: Context, *keys: str | int) -> None:
    """Set the global generators, from which dropout and stochastic depth draw, for one step of training.

    So a step is the same whether the steps before it were done by this process or by one that was broken off.
    """
    torch.manual_seed(derive_seed(ctx.config.student_seed, "dropout", *keys, ctx.group.number))


def _augmented(ctx: Context, synthetic: SyntheticSet) -> RandAugmented | None:
    """The images under RandAugment where that is asked for."""
    config = ctx.config.train
    if config.augment == "none":
        return None
    source = synthetic.real or ResidentSource(synthetic.images_NCHW, synthetic.labels_N, ctx.device)
    return RandAugmented(source, config.randaugment_ops, config.randaugment_magnitude, ctx.config.student_seed)
