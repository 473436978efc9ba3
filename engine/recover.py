"""Recovery: optimise synthetic images so that the teacher sees the statistics of the real ones.

A *chunk* is the set of images optimised together; it is the unit of work and of randomness, and its composition
is part of the result (un-squared norms couple its images), so it never depends on memory. A chunk too large for
memory is computed in exact micro-batches (see ``engine.losses``).

Shapes: B images of a chunk, T iterations, C classes, F channels, D features, K = IPC.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from engine import events
from engine.augment import Views, apply_matrices, draw_views, view_matrices
from engine.checkpoints import Slots
from engine.config import RecoverConfig, RunConfig
from engine.context import Context
from engine.data import Dataset, normalise
from engine.errors import NonFiniteLoss, OutOfMemory, Stopped
from engine.losses import (
    Coefficients,
    Targets,
    Terms,
    average,
    chunk_loss,
    collect,
    derivatives,
    image_prior,
    join,
    surrogate,
)
from engine.memory import fits
from engine.models.instrument import Probe, bn_layers
from engine.pictures import write_row
from engine.randomness import generator, permutation
from engine.statistics import Statistics
from engine.telemetry import LossBuffer


@dataclass(frozen=True)
class Chunk:
    """Images optimised together: their classes and their ordinals within the class, both (B,) int64."""

    index: int
    labels_B: torch.Tensor
    ordinals_B: torch.Tensor


@dataclass(frozen=True)
class Recipe:
    """All that one step needs besides the images; tensors on the device.

    ``views`` holds T (shared) or T × B (per image) views; ``lr_T`` the learning rates; ``low_C``/``high_C`` the
    valid range of each colour channel in normalised space. ``others`` are further teachers with targets of their own,
    whose losses are averaged with the first one's.
    """

    targets: Targets
    coefficients: Coefficients
    views: Views
    lr_T: list[float]
    low_C: torch.Tensor
    high_C: torch.Tensor
    betas: tuple[float, float]
    others: tuple[tuple[Probe, Targets], ...] = ()
    tv: float = 0.0
    l2: float = 0.0
    micro_batch: int = 0
    bf16: bool = False


def plan_chunks(classes: int, ipc: int, batch_size: int, chunk: str) -> list[Chunk]:
    """Divide classes × ipc images into chunks.

    "per-class": ``batch_size // ipc`` whole classes, at least one; the last chunk may be smaller.
    "across-classes": image j of up to ``batch_size`` classes.
    """
    groups: list[tuple[torch.Tensor, torch.Tensor]] = []
    if chunk == "per-class":
        for labels in torch.arange(classes).split(max(1, batch_size // ipc)):
            groups.append((labels.repeat_interleave(ipc), torch.arange(ipc).repeat(len(labels))))
    else:
        for labels in torch.arange(classes).split(batch_size):
            groups += [(labels, torch.full_like(labels, ordinal)) for ordinal in range(ipc)]
    return [Chunk(index, labels_B, ordinals_B) for index, (labels_B, ordinals_B) in enumerate(groups)]


def initial_images(chunk: Chunk, dataset: Dataset, init: str, seed: int) -> torch.Tensor:
    """Start (B, 3, H, W) in normalised space: N(0, 1) noise, or distinct random real images of each class."""
    size = dataset.resolution
    if init == "noise":
        return torch.stack(
            [
                torch.randn(3, size, size, generator=generator(seed, "recover-init", label, ordinal))
                for label, ordinal in zip(chunk.labels_B.tolist(), chunk.ordinals_B.tolist(), strict=True)
            ]
        )
    index = real_indices(chunk, dataset.train.labels_N, seed)
    return normalise(dataset.train.batch(index), dataset.mean, dataset.std).cpu()


def real_indices(chunk: Chunk, labels_N: torch.Tensor, seed: int) -> torch.Tensor:
    """For each image of the chunk a training image of its class: the j-th of a seeded permutation."""
    index = []
    for label, ordinal in zip(chunk.labels_B.tolist(), chunk.ordinals_B.tolist(), strict=True):
        members = (labels_N == label).nonzero().flatten()
        index.append(int(members[permutation(len(members), seed, "real-images", label)[ordinal % len(members)]]))
    return torch.tensor(index)


def crop_bounds(config: RecoverConfig) -> torch.Tensor:
    """Lower bound of the crop's area at each iteration (T,): constant, or CDA's curriculum from 1 down."""
    if config.curriculum == "none":
        return torch.full((config.iterations,), config.crop_min)
    span = max(1.0, config.milestone * config.iterations)
    share = (torch.arange(config.iterations) / span).clamp(max=1)
    fall = {
        "step": (share >= 1).float(),
        "linear": share,
        "cosine": 0.5 * (1 - torch.cos(math.pi * share)),
    }[config.curriculum]
    return 1 - (1 - config.crop_min) * fall


def learning_rates(peak: float, iterations: int) -> list[float]:
    """Cosine from ``peak`` to 0, without warm-up."""
    return [peak * 0.5 * (1 + math.cos(math.pi * step / iterations)) for step in range(iterations)]


def make_targets(
    chunk: Chunk,
    config: RunConfig,
    network: nn.Module,
    statistics: Statistics,
    points_CKD: torch.Tensor | None,
    weights_CK: torch.Tensor | None,
    device: torch.device,
) -> Targets:
    """Targets of a chunk: BN statistics per class or global, weights within classes, barycenters."""
    labels_B, ordinals_B = chunk.labels_B, chunk.ordinals_B
    count = len(labels_B)
    if config.recover.bn == "global":
        group_B = torch.zeros(count, dtype=torch.int64)
        share_GB = torch.full((1, count), 1 / count)
        layers = [layer for _, layer in bn_layers(network)]
        means = [layer.running_mean.detach()[None].float() for layer in layers if layer.running_mean is not None]
        variances = [layer.running_var.detach()[None].float() for layer in layers if layer.running_var is not None]
    else:
        present_G, group_B = labels_B.unique(return_inverse=True)
        weight_B = torch.ones(count)
        if weights_CK is not None and config.barycenter.weights == "optimized":
            weight_B = weights_CK[labels_B, ordinals_B].float()
        share_GB = torch.zeros(len(present_G), count)
        share_GB[group_B, torch.arange(count)] = weight_B
        share_GB /= share_GB.sum(1, keepdim=True)
        means = [layer.mean_CF[present_G] for layer in statistics.layers]
        variances = [layer.var_CF[present_G] for layer in statistics.layers]
    features_BD = None
    if config.recover.objective != "sre2l" and config.recover.r_feature > 0 and points_CKD is not None:
        features_BD = points_CKD[labels_B, ordinals_B].float().to(device)
    return Targets(
        labels_B.to(device),
        group_B.to(device),
        share_GB.to(device),
        tuple(mean.to(device) for mean in means),
        tuple(variance.to(device) for variance in variances),
        features_BD,
    )


def make_coefficients(config: RecoverConfig) -> Coefficients:
    """SRe2L's objective is cross-entropy (coefficient 1) plus the BN term; WMDD's has all three."""
    sre2l = config.objective == "sre2l"
    return Coefficients(
        ce=1.0 if sre2l else config.r_wb,
        feature=0.0 if sre2l else config.r_feature,
        bn=config.r_bn,
        first_bn_multiplier=config.first_bn_multiplier,
        semantics=config.loss_semantics,
    )


def make_recipe(
    config: RunConfig,
    chunk: Chunk,
    dataset: Dataset,
    targets: Targets,
    device: torch.device,
    others: tuple[tuple[Probe, Targets], ...] = (),
) -> Recipe:
    """Everything random or scheduled of a chunk, computed ahead."""
    recover = config.recover
    bounds_T = crop_bounds(recover)
    shared = recover.augment == "shared"
    count = recover.iterations * (1 if shared else len(chunk.labels_B))
    if not shared:
        bounds_T = bounds_T.repeat_interleave(len(chunk.labels_B))
    roll = min(recover.roll, dataset.resolution - 1)
    views = draw_views(
        count, dataset.resolution, bounds_T, recover.flip, roll, config.seed, "recover-views", chunk.index
    )
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    return Recipe(
        targets=targets,
        coefficients=make_coefficients(recover),
        views=Views(views.boxes_N4.to(device), views.flips_N.to(device), views.rolls_N2.to(device)),
        lr_T=learning_rates(recover.lr, recover.iterations),
        low_C=((0 - mean) / std).to(device),
        high_C=((1 - mean) / std).to(device),
        betas=(recover.beta1, recover.beta2),
        others=others,
        tv=recover.tv,
        l2=recover.l2,
        micro_batch=recover.micro_batch,
        bf16=recover.precision == "bf16" or (recover.precision == "auto" and device.type == "cuda"),
    )


def loss_and_gradient(
    images_BCHW: torch.Tensor, probe: Probe, recipe: Recipe, iteration: int
) -> tuple[Terms, torch.Tensor]:
    """Terms of the chunk at one iteration and the gradient of the total to the images, exact for any micro-batch."""
    if recipe.others:
        alone = [
            replace(recipe, targets=targets, others=()) for _, targets in ((probe, recipe.targets), *recipe.others)
        ]
        probes = [probe, *(other for other, _ in recipe.others)]
        steps = [loss_and_gradient(images_BCHW, *one, iteration) for one in zip(probes, alone, strict=True)]
        return average([terms for terms, _ in steps]), torch.stack([gradient for _, gradient in steps]).mean(0)
    count = len(images_BCHW)
    per_step = len(recipe.views.flips_N) // len(recipe.lr_T)
    rows, columns = view_matrices(
        recipe.views[slice(iteration * per_step, (iteration + 1) * per_step)], images_BCHW.shape[-1]
    )

    def forward(part: slice) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        own = part if per_step == count else slice(None)
        views = apply_matrices(images_BCHW[part], rows[own], columns[own])
        if images_BCHW.device.type == "cuda":
            views = views.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=recipe.bf16):
            return probe(views)

    size = recipe.micro_batch or count
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    if len(parts) == 1:
        terms = chunk_loss(collect(*forward(parts[0]), recipe.targets), recipe.targets, recipe.coefficients)
        objective = terms.total
        if recipe.tv or recipe.l2:
            objective = objective + image_prior(images_BCHW, recipe.tv, recipe.l2)
        return terms.detached(), torch.autograd.grad(objective, images_BCHW)[0]
    with torch.no_grad():
        seen = join([collect(*forward(part), recipe.targets, part) for part in parts])
    terms, to_collected = derivatives(seen, recipe.targets, recipe.coefficients)
    gradient = torch.zeros_like(images_BCHW)
    for part in parts:
        scalar = surrogate(collect(*forward(part), recipe.targets, part), to_collected, part)
        gradient += torch.autograd.grad(scalar, images_BCHW)[0]
    if recipe.tv or recipe.l2:
        gradient += torch.autograd.grad(image_prior(images_BCHW, recipe.tv, recipe.l2), images_BCHW)[0]
    return terms.detached(), gradient


def step_that_fits(
    images_BCHW: torch.Tensor, probe: Probe, recipe: Recipe, iteration: int, smaller: Callable[[int, int], None]
) -> tuple[Terms, torch.Tensor, Recipe]:
    """``loss_and_gradient``, in smaller micro-batches where the device has too little memory, and the recipe for them.

    The result is the same but for rounding. ``smaller`` is told the size that did not fit and the one tried next.
    Raises OutOfMemory where not even one image fits.
    """
    found: list[tuple[Terms, torch.Tensor]] = []

    def step(recipe: Recipe) -> None:
        found.append(loss_and_gradient(images_BCHW, probe, recipe, iteration))

    while not fits(partial(step, recipe)):
        size = recipe.micro_batch or len(images_BCHW)
        if size == 1:
            raise OutOfMemory(
                f"not even one image of {images_BCHW.shape[-1]} px fits the device's memory in recovery",
                "use a device with more, a smaller teacher or a lower data.resolution",
            )
        recipe = replace(recipe, micro_batch=(size + 1) // 2)
        smaller(size, recipe.micro_batch)
    return *found[0], recipe


def optimise(
    images_BCHW: torch.Tensor,
    probe: Probe,
    recipe: Recipe,
    first: int = 0,
    adam: dict[str, torch.Tensor] | None = None,
    after_step: Callable[[int, Terms, torch.Tensor, dict[str, torch.Tensor]], None] = lambda *_: None,
    smaller: Callable[[int, int], None] = lambda *_: None,
) -> torch.Tensor:
    """Adam on the pixels, clamped to the valid range after every step; returns the images.

    ``first`` and ``adam`` (``exp_avg``, ``exp_avg_sq``) continue an interrupted optimisation. ``after_step`` gets
    the iteration, its terms, the images and Adam's state; it may raise to stop. ``smaller``: see ``step_that_fits``.
    """
    images_BCHW = images_BCHW.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([images_BCHW], lr=recipe.lr_T[0], betas=recipe.betas, eps=1e-8)
    if adam is not None:
        optimiser.state[images_BCHW] = {"step": torch.tensor(float(first)), **adam}
    low, high = recipe.low_C[:, None, None], recipe.high_C[:, None, None]
    for iteration in range(first, len(recipe.lr_T)):
        terms, images_BCHW.grad, recipe = step_that_fits(images_BCHW, probe, recipe, iteration, smaller)
        optimiser.param_groups[0]["lr"] = recipe.lr_T[iteration]
        optimiser.step()
        with torch.no_grad():
            images_BCHW.copy_(torch.minimum(torch.maximum(images_BCHW, low), high))
        state = optimiser.state[images_BCHW]
        after_step(iteration, terms, images_BCHW.detach(), {key: state[key] for key in ("exp_avg", "exp_avg_sq")})
    return images_BCHW.detach()


def to_uint8(
    images_BCHW: torch.Tensor, mean: tuple[float, ...] | torch.Tensor, std: tuple[float, ...] | torch.Tensor
) -> torch.Tensor:
    """Denormalise and truncate to 8 bits, as the reference does."""
    mean_C = torch.as_tensor(mean, device=images_BCHW.device)[:, None, None]
    std_C = torch.as_tensor(std, device=images_BCHW.device)[:, None, None]
    return ((images_BCHW * std_C + mean_C) * 255).clamp(0, 255).to(torch.uint8)


def recover_chunk(
    ctx: Context,
    dataset: Dataset,
    probe: Probe,
    chunk: Chunk,
    chunks: int,
    targets: Targets,
    work: str,
    others: tuple[tuple[Probe, Targets], ...] = (),
) -> torch.Tensor:
    """Optimise one chunk, going on from its checkpoint; returns uint8 images (B, 3, H, W) on the CPU.

    ``work`` identifies what determines the images; ``others`` are further teachers. Raises Stopped, NonFiniteLoss,
    OutOfMemory.
    """
    recover = ctx.config.recover
    recipe = make_recipe(ctx.config, chunk, dataset, targets, ctx.device, others)
    slots = Slots(ctx.run.checkpoints, f"recover-{chunk.index:06d}", work)

    def where(state: dict[str, Any]) -> str:
        done = state["iteration"] + 1
        return f"recover, chunk {chunk.index + 1} of {chunks}, {done} of {recover.iterations} iterations"

    saved = ctx.load(slots, where)
    first, adam = 0, None
    if saved is None:
        images_BCHW = initial_images(chunk, dataset, recover.init, ctx.config.seed).to(ctx.device)
        if recover.preview_every:
            _preview(ctx, dataset, chunk, 0, images_BCHW)
    else:
        first = int(saved.state["iteration"]) + 1
        images_BCHW = saved.tensors["images"].to(ctx.device)
        adam = {key: saved.tensors[key].to(ctx.device) for key in ("exp_avg", "exp_avg_sq")}
        if saved.state["fitting"]:
            ctx.fitting.setdefault("recover", int(saved.state["fitting"]))
    if "recover" in ctx.fitting:
        wanted = recover.micro_batch or len(chunk.labels_B)
        recipe = replace(recipe, micro_batch=min(wanted, ctx.fitting["recover"]))
    layers = sum(len(one.mean_GF) for one in (targets, *(theirs for _, theirs in others)))
    buffer = LossBuffer(ctx.emit, chunk.index, layers, ctx.device, recipe.lr_T)
    place, turns = ctx.turn or (chunk.index, chunks)
    total = turns * recover.iterations

    def after_step(iteration: int, terms: Terms, images: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
        buffer.add(iteration, terms)
        done = iteration + 1
        ctx.progress("recover", place * recover.iterations + done, total, "iterations")
        last = done == recover.iterations
        if recover.preview_every and (done % recover.preview_every == 0 or last):
            _preview(ctx, dataset, chunk, done, images)
        stop = ctx.interrupted()
        if stop or ctx.checkpoint_due() or (done % recover.checkpoint_every == 0 and not last):
            buffer.flush()
            facts = {"iteration": iteration, "fitting": ctx.fitting.get("recover", 0)}
            ctx.save(slots, where(facts), {"images": images, **state}, **facts)
        if stop:
            raise Stopped("stopped in recover")

    def smaller(size: int, next_size: int) -> None:
        ctx.fitting["recover"] = next_size
        ctx.warn(
            f"recover: {size} images do not fit the device's memory; going on in micro-batches of {next_size}, with "
            "the same result but for rounding"
        )

    images_BCHW = optimise(images_BCHW, probe, recipe, first, adam, after_step, smaller)
    buffer.flush()
    if not bool(torch.isfinite(images_BCHW).all()):
        raise NonFiniteLoss(
            f"images of chunk {chunk.index} became NaN in the last iteration",
            "lower recover.lr or recover.r_bn; the last checkpoint before it is kept",
        )
    return to_uint8(images_BCHW, dataset.mean, dataset.std).cpu()


def _preview(ctx: Context, dataset: Dataset, chunk: Chunk, done: int, images_BCHW: torch.Tensor) -> None:
    """Write a preview; one that cannot be written is said once and is no reason to stop."""
    name = f"chunk-{chunk.index:06d}-{done:07d}.png"
    shown = torch.linspace(0, len(images_BCHW) - 1, min(10, len(images_BCHW))).long()
    try:
        write_row(
            ctx.run.previews / name,
            to_uint8(images_BCHW[shown.to(images_BCHW.device)], dataset.mean, dataset.std).cpu(),
        )
    except OSError as error:
        ctx.warn_once(f"previews cannot be written: {error.strerror}")
        return
    classes = chunk.labels_B[shown].tolist()
    ctx.emit(events.Image(chunk=chunk.index, iteration=done, path=f"previews/{name}", classes=classes))
