"""The optimisation of a chunk's pixels: one step's terms and gradient, and Adam over all steps.

A chunk too large for memory is computed in exact micro-batches (see ``engine.losses``).

Shapes: B images of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from engine.augment import apply_matrices, view_matrices
from engine.errors import OutOfMemory
from engine.losses import Terms, average, chunk_loss, collect, derivatives, image_prior, join, surrogate
from engine.memory import fits
from engine.models.instrument import Probe
from engine.recipe import Recipe


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
