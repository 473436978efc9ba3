"""Recovery: optimise synthetic images so that the teacher sees the statistics of the real ones.

Of one chunk: its start, its optimisation with checkpoints, telemetry and previews, its images in 8 bits.

Shapes: B images of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from engine import events
from engine.behind import Behind, on_host
from engine.checkpoints import Slots
from engine.chunks import Chunk
from engine.concurrency import Steps
from engine.context import Context
from engine.course import Course
from engine.data import Dataset, channels_of
from engine.errors import NonFiniteLoss, Stopped
from engine.losses import Targets, Terms
from engine.models.instrument import Forward
from engine.optimise import optimising
from engine.pictures import write_row
from engine.recipe import make_recipe
from engine.starts import initial_images
from engine.telemetry import ROWS, LossBuffer
from engine.verifier import Verifier


def to_uint8(
    images_BCHW: torch.Tensor,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    nearest: bool = False,
) -> torch.Tensor:
    """Denormalise and truncate to 8 bits, as the reference does, or take the ``nearest`` of the 256 levels."""
    mean_C, std_C = channels_of(mean, images_BCHW.device), channels_of(std, images_BCHW.device)
    levels = (images_BCHW * std_C + mean_C) * 255
    return (levels.round() if nearest else levels).clamp(0, 255).to(torch.uint8)


def recover_chunk(
    ctx: Context,
    dataset: Dataset,
    teachers: Sequence[tuple[Forward, Targets]],
    chunk: Chunk,
    chunks: int,
    work: str,
    course: Course,
    verifier: Verifier | None = None,
) -> Steps[torch.Tensor]:
    """Optimise one chunk, going on from its checkpoint, a step at a time; returns uint8 images (B, 3, H, W) on the CPU.

    ``teachers`` are what is asked and what each wants, the first also of the start. ``work`` identifies what determines
    the images; ``verifier`` looks on. Raises Stopped, NonFiniteLoss, OutOfMemory.
    """
    recover = ctx.config.recover
    (forward, targets), *others = teachers
    recipe = make_recipe(ctx.config, chunk, dataset, targets, ctx.device, tuple(others))
    slots = Slots(ctx.run.checkpoints, f"recover-{chunk.index:06d}", work)

    def where(state: dict[str, Any]) -> str:
        done = state["iteration"] + 1
        return f"recover, chunk {chunk.index + 1} of {chunks}, {done} of {recover.iterations} iterations"

    saved = ctx.load(slots, where)
    first, adam = 0, None
    if saved is None:
        tell = partial(course.look, len(chunk.labels_B))
        images_BCHW = start_of(ctx, dataset, forward, chunk, targets, tell).to(ctx.device)
    else:
        first = int(saved.state["iteration"]) + 1
        images_BCHW = saved.tensors["images"].to(ctx.device)
        adam = {key: saved.tensors[key].to(ctx.device) for key in ("exp_avg", "exp_avg_sq")}
        if saved.state["fitting"]:
            ctx.fitting.setdefault("recover", int(saved.state["fitting"]))
    if "recover" in ctx.fitting:
        wanted = recover.micro_batch or len(chunk.labels_B)
        recipe = replace(recipe, micro_batch=min(wanted, ctx.fitting["recover"]))
    rows_RL = torch.zeros(ROWS, Terms.width(recipe.layers), device=ctx.device)
    buffer = LossBuffer(ctx.emit, chunk.index, rows_RL)

    def after_step(iteration: int, _terms: Terms, images: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
        buffer.add(iteration)
        done = iteration + 1
        course.step(chunk, done)
        last = done == recover.iterations
        if recover.preview_every and (done % recover.preview_every == 0 or last):
            behind.do(_preview(ctx, dataset, chunk, done, images))
        if verifier is not None and (done % recover.verify_every == 0 or last):
            behind.do(verifier.look(chunk, done, images))
        stop = ctx.interrupted()
        if stop or course.saving or (done % recover.checkpoint_every == 0 and not last):
            buffer.flush()
            facts = {"iteration": iteration, "fitting": ctx.fitting.get("recover", 0)}
            kept = {name: on_host(tensor) for name, tensor in {"images": images, **state}.items()}
            behind.do(partial(_save, ctx, slots, where(facts), kept, facts))
        if stop:
            behind.finish()
            raise Stopped("stopped in recover")

    def smaller(size: int, next_size: int) -> None:
        ctx.fitting["recover"] = next_size
        ctx.warn(
            f"recover: {size} images do not fit the device's memory; going on in micro-batches of {next_size}, with "
            "the same result but for rounding"
        )

    def slower(reason: str) -> None:
        ctx.warn_once(f"recover: {reason}; the result is the same, and takes longer")

    with Behind(ctx.device) as behind:
        if saved is None and recover.preview_every:
            behind.do(_preview(ctx, dataset, chunk, 0, images_BCHW))
        steps = optimising(images_BCHW, forward, recipe, first, adam, after_step, smaller, rows_RL, slower)
        images_BCHW = yield from steps
        buffer.flush()
    if not bool(torch.isfinite(images_BCHW).all()):
        raise NonFiniteLoss(
            f"images of chunk {chunk.index} became NaN in the last iteration",
            "lower recover.lr or recover.r_bn; the last checkpoint before it is kept",
        )
    return to_uint8(images_BCHW, dataset.mean, dataset.std).cpu()


def start_of(
    ctx: Context, dataset: Dataset, forward: Forward, chunk: Chunk, targets: Targets, tell: Callable[[int], None]
) -> torch.Tensor:
    """What a chunk's optimisation begins with (B, 3, H, W), normalised, on the CPU. Raises Stopped.

    Where patches of photographs are compared, which may take minutes, ``tell`` gets how many images have theirs.
    """

    def between(found: int) -> None:
        ctx.stop_if_asked("recover")
        tell(found)

    config = ctx.config
    return initial_images(chunk, dataset, config.recover, config.ipc, config.seed, forward, targets, between)


def _save(
    ctx: Context, slots: Slots, where: str, kept: dict[str, Callable[[], torch.Tensor]], facts: dict[str, Any]
) -> None:
    """Write a checkpoint of tensors on their way to the host. Raises OSError, NonFiniteLoss."""
    ctx.save(slots, where, {name: wait() for name, wait in kept.items()}, **facts)


def _preview(ctx: Context, dataset: Dataset, chunk: Chunk, done: int, images_BCHW: torch.Tensor) -> Callable[[], None]:
    """What writes a preview of the images as they are now; one that cannot be written is said once and is no reason
    to stop.
    """
    name = f"chunk-{chunk.index:06d}-{done:07d}.png"
    count = min(10, len(images_BCHW))
    shown = torch.linspace(0, len(images_BCHW) - 1, count).long()
    picked = images_BCHW.index_select(0, shown.to(images_BCHW.device, non_blocking=True))
    picture = on_host(to_uint8(picked, dataset.mean, dataset.std))

    def write() -> None:
        try:
            write_row(ctx.run.previews / name, picture())
        except OSError as error:
            ctx.warn_once(f"previews cannot be written: {error.strerror}")
            return
        classes = chunk.labels_B[shown].tolist()
        ctx.emit(events.Image(chunk=chunk.index, iteration=done, path=f"previews/{name}", classes=classes))

    return write
