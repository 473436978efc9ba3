"""The optimisation of a chunk's pixels: one step's terms and gradient, and Adam over all steps.

A step is a function of tensors on the device alone: views, learning rate and the row its terms are recorded in are
looked up there by a number of the iteration that lives there too. So nothing of it waits for the host, and on a GPU
it is recorded once as a CUDA graph and replayed. A chunk too large for memory is computed in exact micro-batches (see
``engine.losses``).

Shapes: B images of a chunk, T iterations, R rows of a record of L BN layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial

import torch

from engine.augment import apply_matrices, view_matrices
from engine.compiling import failure_of
from engine.concurrency import Steps, alone
from engine.errors import OutOfMemory
from engine.losses import Collected, Terms, average, chunk_loss, collect, derivatives, image_prior, join, surrogate
from engine.memory import fits
from engine.models.instrument import Forward
from engine.recipe import Recipe

#: Steps launched one operation at a time before the rest is recorded: they choose kernels and allocate workspaces.
WARM_UP = 3

Gradient = tuple[Terms, torch.Tensor]


def loss_and_gradient(
    images_BCHW: torch.Tensor, forward: Forward, recipe: Recipe, iteration: int | torch.Tensor
) -> Gradient:
    """Terms of the chunk at one iteration and the gradient of the total to the images, exact for any micro-batch."""
    if recipe.others:
        alone = [
            replace(recipe, targets=targets, others=()) for _, targets in ((forward, recipe.targets), *recipe.others)
        ]
        forwards = [forward, *(other for other, _ in recipe.others)]
        steps = [loss_and_gradient(images_BCHW, *one, iteration) for one in zip(forwards, alone, strict=True)]
        return average([terms for terms, _ in steps]), torch.stack([gradient for _, gradient in steps]).mean(0)
    count = len(images_BCHW)
    per_step = len(recipe.views.flips_N) // len(recipe.lr_T)
    number = torch.as_tensor(iteration, device=images_BCHW.device)
    matrices = view_matrices(recipe.views.at(number, per_step), images_BCHW.shape[-1])
    size = recipe.micro_batch or count
    if size >= count:
        whole = _compiled_whole() if recipe.compiled else _whole
        total, terms = whole(images_BCHW, matrices, forward, recipe)
        return terms.detached(), torch.autograd.grad(total, images_BCHW)[0]
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]

    def collected_of(some_BCHW: torch.Tensor, part: slice) -> Collected:
        own = part if per_step == count else slice(None)
        seen = _look(some_BCHW, (matrices[0][own], matrices[1][own]), forward, recipe)
        return collect(*seen, recipe.targets, part)

    with torch.no_grad():
        collected = join([collected_of(images_BCHW[part], part) for part in parts])
    terms, to_collected = derivatives(collected, recipe.targets, recipe.coefficients)
    gradient = torch.empty_like(images_BCHW)
    for part in parts:
        some_BCHW = images_BCHW[part].detach().requires_grad_()
        scalar = surrogate(collected_of(some_BCHW, part), to_collected, part)
        gradient[part] = torch.autograd.grad(scalar, some_BCHW)[0]
    if recipe.tv or recipe.l2:
        gradient += torch.autograd.grad(image_prior(images_BCHW, recipe.tv, recipe.l2), images_BCHW)[0]
    return terms.detached(), gradient


def _look(
    images_BCHW: torch.Tensor, matrices: tuple[torch.Tensor, torch.Tensor], forward: Forward, recipe: Recipe
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """What the teacher says to views of images, and its BatchNorm inputs."""
    views = apply_matrices(images_BCHW, *matrices)
    if recipe.channels_last:
        views = views.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=recipe.bf16):
        return forward(views)


def _whole(
    images_BCHW: torch.Tensor, matrices: tuple[torch.Tensor, torch.Tensor], forward: Forward, recipe: Recipe
) -> tuple[torch.Tensor, Terms]:
    """What is differentiated, and the terms, of a chunk in one piece."""
    seen = collect(*_look(images_BCHW, matrices, forward, recipe), recipe.targets)
    terms = chunk_loss(seen, recipe.targets, recipe.coefficients)
    if recipe.tv or recipe.l2:
        return terms.total + image_prior(images_BCHW, recipe.tv, recipe.l2), terms
    return terms.total, terms


@cache
def _compiled_whole() -> Callable[..., tuple[torch.Tensor, Terms]]:
    """``_whole``, forward and backward each compiled as one graph; anew for chunks of another size."""
    return torch.compile(_whole, fullgraph=True, dynamic=False)


def gradient_that_fits(
    images_BCHW: torch.Tensor,
    forward: Forward,
    recipe: Recipe,
    iteration: torch.Tensor,
    smaller: Callable[[int, int], None],
) -> tuple[Gradient, Recipe]:
    """``loss_and_gradient``, in smaller micro-batches where the device has too little memory, and the recipe for them.

    The result is the same but for rounding. ``smaller`` is told the size that did not fit and the one tried next.
    Raises OutOfMemory where not even one image fits.
    """
    found: list[Gradient] = []

    def step(recipe: Recipe) -> None:
        found.append(loss_and_gradient(images_BCHW, forward, recipe, iteration))

    while not fits(partial(step, recipe)):
        size = recipe.micro_batch or len(images_BCHW)
        if size == 1:
            raise OutOfMemory(
                f"not even one image of {images_BCHW.shape[-1]} px fits the device's memory in recovery",
                "use a device with more, a smaller teacher or a lower data.resolution",
            )
        recipe = replace(recipe, micro_batch=(size + 1) // 2)
        smaller(size, recipe.micro_batch)
    return found[0], recipe


@dataclass(frozen=True)
class Pixels:
    """All that a step changes, on the device: images, Adam's state, the number of the iteration, what is recorded.

    ``rows_RL`` is a ring: iteration i is recorded in row i modulo R. ``bounds`` are those of each colour channel.
    """

    images_BCHW: torch.Tensor
    optimiser: torch.optim.Optimizer
    lr: torch.Tensor
    lr_T: torch.Tensor
    bounds: tuple[torch.Tensor, torch.Tensor]
    iteration: torch.Tensor
    rows_RL: torch.Tensor

    def update(self, found: Gradient) -> None:
        """Adam's step, the clamp to the valid range, and the record of an iteration."""
        terms, gradient = found
        self.images_BCHW.grad = gradient.contiguous()
        with torch.no_grad():
            self.lr.copy_(self.lr_T.index_select(0, self.iteration)[0])
            self.optimiser.step()
            torch.clamp(self.images_BCHW, *self.bounds, out=self.images_BCHW)
            self.rows_RL.index_copy_(0, self.iteration % len(self.rows_RL), terms.row()[None])
            self.iteration.add_(1)

    def adam(self) -> dict[str, torch.Tensor]:
        """Adam's two moments by name."""
        state = self.optimiser.state[self.images_BCHW]
        return {key: state[key] for key in ("exp_avg", "exp_avg_sq")}


def begin(
    images_BCHW: torch.Tensor, recipe: Recipe, first: int, adam: dict[str, torch.Tensor] | None, rows_RL: torch.Tensor
) -> Pixels:
    """The state before iteration ``first``; ``adam`` holds the moments of the iterations before it."""
    images_BCHW = images_BCHW.detach().clone().requires_grad_()
    device = images_BCHW.device
    lr = torch.tensor(recipe.lr_T[0], device=device)
    optimiser = torch.optim.Adam(
        [images_BCHW], lr=lr, betas=recipe.betas, eps=1e-8, fused=True, capturable=device.type == "cuda"
    )
    if adam is None:
        adam = {name: torch.zeros_like(images_BCHW) for name in ("exp_avg", "exp_avg_sq")}
    optimiser.state[images_BCHW] = {"step": torch.tensor(float(first), device=device), **adam}
    return Pixels(
        images_BCHW,
        optimiser,
        lr,
        torch.tensor(recipe.lr_T, device=device),
        (recipe.low_C[:, None, None], recipe.high_C[:, None, None]),
        torch.tensor([first], device=device),
        rows_RL,
    )


def optimising(
    images_BCHW: torch.Tensor,
    forward: Forward,
    recipe: Recipe,
    first: int = 0,
    adam: dict[str, torch.Tensor] | None = None,
    after_step: Callable[[int, Terms, torch.Tensor, dict[str, torch.Tensor]], None] = lambda *_: None,
    smaller: Callable[[int, int], None] = lambda *_: None,
    rows_RL: torch.Tensor | None = None,
    slower: Callable[[str], None] = lambda _: None,
) -> Steps[torch.Tensor]:
    """Adam on the pixels, clamped to the valid range after every step; returns the images, a step at a time.

    ``first`` and ``adam`` (``exp_avg``, ``exp_avg_sq``) continue an interrupted optimisation. ``after_step`` gets
    the iteration, its terms, the images and Adam's state, all of which the next step overwrites; it may raise to
    stop. ``smaller``: see ``gradient_that_fits``. Terms are recorded in ``rows_RL``, a ring of ``Terms.row``.
    ``slower`` is told why a step that was to be compiled or recorded is not.
    """
    if rows_RL is None:
        rows_RL = torch.zeros(1, Terms.width(recipe.layers), device=images_BCHW.device)
    pixels = begin(images_BCHW, recipe, first, adam, rows_RL)
    replay: Callable[[], None] | None = None
    stream = OwnStream(images_BCHW.device)
    try:
        with stream():
            step = partial(loss_and_gradient, pixels.images_BCHW, forward, recipe, pixels.iteration)
            failure = failure_of(step) if recipe.compiled else ""
        if failure:
            slower(f"steps are not compiled: {failure}")
            recipe = replace(recipe, compiled=False)
        for iteration in range(first, len(recipe.lr_T)):
            with stream():
                if replay is not None:
                    replay()
                else:
                    found, recipe = gradient_that_fits(pixels.images_BCHW, forward, recipe, pixels.iteration, smaller)
                    pixels.update(found)
                    if recipe.captured and iteration + 1 == first + WARM_UP:
                        replay = _capture(pixels, forward, recipe)
                        if replay is None:
                            slower(
                                "steps are launched operation by operation, since memory has no room for their record"
                            )
                terms = Terms.of_row(rows_RL[iteration % len(rows_RL)])
                after_step(iteration, terms, pixels.images_BCHW.detach(), pixels.adam())
            yield
    finally:
        stream.join()
    return pixels.images_BCHW.detach()


#: ``optimising`` from beginning to end; returns the images.
optimise = alone(optimising)


class OwnStream:
    """On a GPU a stream of a chunk's own, which capturing asks for and by which chunks overlap; elsewhere nothing.

    As a context it is the stream that work is given to, with kernels chosen by trial for the one size there is.
    """

    def __init__(self, device: torch.device) -> None:
        self._own = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._own is not None:
            self._own.wait_stream(torch.cuda.current_stream(device))

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if self._own is None:
            yield
            return
        usual = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            with torch.cuda.stream(self._own):
                yield
        finally:
            torch.backends.cudnn.benchmark = usual

    def join(self) -> None:
        """What is given to the usual stream from here on comes after all that was given to this one."""
        if self._own is not None:
            torch.cuda.current_stream(self._own.device).wait_stream(self._own)


def _capture(pixels: Pixels, forward: Forward, recipe: Recipe) -> Callable[[], None] | None:
    """A whole step, recorded as a CUDA graph without being done; what is returned does it. None where memory ends.

    All graphs are recorded on one stream, and cuBLAS keeps one workspace a stream: forgotten before and after, each
    graph has its own, so that graphs replayed side by side do not write to the same.
    """
    graph = torch.cuda.CUDAGraph()

    def record() -> None:
        torch._C._cuda_clearCublasWorkspaces()
        try:
            # What other threads ask of the GPU meanwhile, to write a checkpoint or a preview, is no part of the graph.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                pixels.update(loss_and_gradient(pixels.images_BCHW, forward, recipe, pixels.iteration))
        finally:
            torch._C._cuda_clearCublasWorkspaces()

    return graph.replay if fits(record) else None
