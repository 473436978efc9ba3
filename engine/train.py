"""Training of the student on the synthetic images, and its accuracy on real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from engine import events
from engine.checkpoints import Slots, capture, restore
from engine.config import TrainConfig
from engine.context import Context
from engine.data import ImageSource, normalise
from engine.errors import NonFiniteLoss, Stopped
from engine.evaluate import evaluate
from engine.memory import fits, training_failure
from engine.mixing import EpochPlan
from engine.relabel import teacher_logits
from engine.softlabels import SyntheticSet


@dataclass(frozen=True)
class StudentResult:
    """Accuracies in percent of the last epoch, and of the best evaluated one, reported as such."""

    top1: float
    top5: float
    best_top1: float
    best_epoch: int


def kd_loss(
    student_NC: torch.Tensor,
    teacher_NC: torch.Tensor,
    temperature: float,
    weights_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)), mean over images, no T² factor (as FKD has it).

    Each image counts by its weight over the batch's mean weight.
    """
    divergence_N = functional.kl_div(
        functional.log_softmax(student_NC / temperature, dim=1),
        functional.log_softmax(teacher_NC / temperature, dim=1),
        reduction="none",
        log_target=True,
    ).sum(1)
    if weights_N is not None:
        divergence_N = divergence_N * (weights_N / weights_N.mean())
    return divergence_N.mean()


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Rate of an epoch: cosine to 0, a cosine that falls half as far along its arc, or constant."""
    if config.schedule == "constant":
        return config.lr
    arc = math.pi * epoch / config.epochs
    return config.lr * 0.5 * (1 + math.cos(arc if config.schedule == "cosine" else arc / 2))


def batch_rows(count: int, batch_size: int) -> list[slice]:
    """Positions of each step; a last batch of one image, which BatchNorm cannot take, joins the one before."""
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


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
) -> StudentResult:
    """Train in place. Soft labels come from ``stored(epoch)`` or, online, from ``teacher``; with
    ``train.labels = "hard"`` the classes are used. With ``train.ema`` the exponential mean of the weights over the
    steps is what is evaluated, and what the student is in the end.

    Goes on from the last checkpoint of this ``work``: an epoch, and the step within it. Raises Stopped,
    NonFiniteLoss, OutOfMemory.
    """
    config = ctx.config.train
    device = ctx.device
    source_NCHW = normalise(synthetic.images_NCHW.to(device), mean, std)
    count, size = len(source_NCHW), source_NCHW.shape[-1]
    labels_N = synthetic.labels_N.to(device)
    weighted = ctx.config.barycenter.weights == "optimized"
    weights_N = synthetic.weights_N.to(device) if weighted else None
    cuda = device.type == "cuda"
    if cuda:
        student.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(student.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    averaged = None
    if config.ema:
        averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    judged = student if averaged is None else averaged.module
    steps = batch_rows(count, config.batch_size)
    first, step, best_top1, best_epoch, top1, top5 = 0, 0, 0.0, 0, 0.0, 0.0
    loss_sum = torch.zeros((), device=device)
    slots = Slots(ctx.run.checkpoints, "train", work)

    def where(state: dict[str, Any]) -> str:
        part = f" and {state['step']} of {len(steps)} steps" if state["step"] else ""
        return f"train, {state['epoch']} of {config.epochs} epochs{part}"

    def save(epoch: int, step: int) -> None:
        state = {
            "epoch": epoch, "step": step, "top1": top1, "top5": top5, "best_top1": best_top1, "best_epoch": best_epoch,
        }  # fmt: skip
        tensors = capture(student, optimiser) | _averaged_state(averaged) | {"loss_sum": loss_sum}
        ctx.save(slots, where(state), tensors, **state)

    def train_step(plan: EpochPlan, logits_NC: torch.Tensor | None, rows: slice) -> None:
        order = plan.order_N[rows].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
            output = student(plan.images(source_NCHW, rows)).float()
        if config.labels == "hard":
            partner = plan.partner_N[rows].to(device)
            loss = _hard_loss(output, labels_N[order], labels_N[partner], plan.lam_N[rows].to(device))
        else:
            if logits_NC is not None:
                target = logits_NC[rows].float()
            elif teacher is not None:
                target = teacher_logits(teacher, plan, source_NCHW, rows, precise=not cuda)
            else:
                raise ValueError("soft labels need stored logits or a teacher")
            loss = kd_loss(output, target, config.temperature, None if weights_N is None else weights_N[order])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if averaged is not None:
            averaged.update_parameters(student)
        loss_sum.add_(loss.detach() * len(order))

    saved = ctx.load(slots, where)
    if saved is not None:
        restore(student, optimiser, saved.tensors)
        if averaged is not None:
            averaged.load_state_dict(_without_prefix(saved.tensors, "averaged/"))
        loss_sum.copy_(saved.tensors["loss_sum"])
        first, step, best_top1, best_epoch = (saved.state[key] for key in ("epoch", "step", "best_top1", "best_epoch"))
        top1, top5 = saved.state["top1"], saved.state["top5"]
    for epoch in range(first, config.epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, epoch)
        plan = EpochPlan(count, size, ctx.config.relabel, ctx.config.seed, epoch)
        logits_NC = stored(epoch).to(device) if stored and config.labels == "soft" else None
        student.train()
        for rows in steps[step:]:
            if not fits(partial(train_step, plan, logits_NC, rows)):
                raise training_failure("train.batch_size", student, rows.stop - rows.start, size, device)
            step += 1
            stop = ctx.interrupted()
            if stop or ctx.checkpoint_due():
                save(epoch, step)
            if stop:
                raise Stopped("stopped in train")
        mean_loss = float(loss_sum) / count  # CPU–GPU synchronisation, once an epoch
        if not math.isfinite(mean_loss):
            raise NonFiniteLoss(f"the student's loss became {mean_loss} in epoch {epoch + 1}", "lower train.lr")
        evaluated = (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs
        if evaluated:
            top1, top5 = evaluate(ctx, "train", judged, val, mean, std)
            if top1 > best_top1:
                best_top1, best_epoch = top1, epoch + 1
        ctx.emit(
            events.Metrics(
                stage="train",
                epoch=epoch + 1,
                epochs=config.epochs,
                loss=events.numbers([mean_loss])[0],
                top1=top1 if evaluated else None,
                top5=top5 if evaluated else None,
                lr=optimiser.param_groups[0]["lr"],
            )
        )
        ctx.progress("train", epoch + 1, config.epochs, "epochs")
        step = 0
        loss_sum.zero_()
        if epoch + 1 == config.epochs:
            save(epoch + 1, 0)
    if averaged is not None:
        student.load_state_dict(judged.state_dict())
    student.eval()
    return StudentResult(top1, top5, best_top1, best_epoch)


def _averaged_state(averaged: AveragedModel | None) -> dict[str, torch.Tensor]:
    return {} if averaged is None else {f"averaged/{name}": value for name, value in averaged.state_dict().items()}


def _without_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _hard_loss(
    output_BC: torch.Tensor, labels_B: torch.Tensor, partner_labels_B: torch.Tensor, lam_B: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy with the two mixed images' classes in proportion to their shares."""
    own = functional.cross_entropy(output_BC, labels_B, reduction="none")
    partner = functional.cross_entropy(output_BC, partner_labels_B, reduction="none")
    return (lam_B * own + (1 - lam_B) * partner).mean()
