"""Recovery: image-iterations a second of the product's loop, telemetry included, against the plain loop.

The product runs as one optimisation, as in a run, in which the baseline's blocks of iterations are put between its own:
what it does once at the beginning (compiling, capturing) is the warm-up and is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torchvision.transforms import functional as picture

from benchmarks.baselines.recover import Recovery, Task, View
from benchmarks.harness.comparison import compared, relative
from benchmarks.harness.options import Options
from benchmarks.harness.problem import dataset, fresh_run, settings, teacher
from benchmarks.harness.timing import Stopwatch, Timings
from engine import starts, statistics
from engine.augment import Views
from engine.chunks import Chunk, plan_chunks
from engine.concurrency import finished
from engine.config import RunConfig
from engine.course import Course
from engine.data import Dataset
from engine.judges import Judge, Points, targets_of
from engine.losses import Targets
from engine.models.instrument import looking_into
from engine.optimise import loss_and_gradient
from engine.recipe import Recipe, make_recipe
from engine.recover import recover_chunk

#: Blocks of each side before the first that counts.
WARM_UP_BLOCKS = 2
#: Iterations over which memory and profiles are taken.
BRIEF = 2


@dataclass(frozen=True)
class Problem:
    """A chunk to recover, and all that both sides need for it.

    The baseline has a network of its own, ``plain``: the product may change the layout of its weights in memory.
    """

    options: Options
    config: RunConfig
    data: Dataset
    network: nn.Module
    plain: nn.Module
    chunk: Chunk
    targets: Targets
    images_BCHW: torch.Tensor


def problem(options: Options) -> Problem:
    """The first chunk of a small data set, with targets from its own statistics."""
    config = settings(options)
    data, network = dataset(options), teacher(options)
    judge = judged(options, data, network)
    chunk = plan_chunks(options.classes, options.ipc, config.recover.batch_size, "per-class")[0]
    with fresh_run(options, config) as ctx:
        targets = targets_of(ctx, chunk, judge)
    images_BCHW = starts.noise(chunk, data.resolution, options.seed).to(options.device)
    return Problem(options, config, data, network, teacher(options), chunk, targets, images_BCHW)


def judged(options: Options, data: Dataset, network: nn.Module) -> Judge:
    """A teacher with its statistics; in the place of barycenters stand features of images."""
    batches = statistics.passes(data.train.labels_N, "exact", 100, 100)
    found = statistics.collect(
        network, data.train.labels_N, batches, statistics.loader(data), options.classes, options.device, False
    )
    features = [found.features_of(label) for label in range(options.classes)]
    points_CKD = torch.stack([one[torch.arange(options.ipc) % len(one)] for one in features]).double()
    weights_CK = torch.full(points_CKD.shape[:2], 1 / options.ipc, dtype=torch.float64)
    return Judge(network, found, Points(points_CKD, weights_CK, torch.zeros(options.classes).double()))


def configured(at: Problem, iterations: int) -> RunConfig:
    """The configuration of so many iterations."""
    return at.config.model_copy(update={"recover": at.config.recover.model_copy(update={"iterations": iterations})})


def recipe_of(at: Problem, iterations: int) -> Recipe:
    """The product's recipe for so many iterations."""
    return make_recipe(configured(at, iterations), at.chunk, at.data, at.targets, at.options.device)


def task_of(at: Problem, iterations: int) -> Task:
    """The same chunk for the baseline."""
    recover, features_BD = at.config.recover, at.targets.features_BD
    if features_BD is None:
        raise ValueError("the measured objective has a feature term")
    low, high = ([(edge - m) / s for m, s in zip(at.data.mean, at.data.std, strict=True)] for edge in (0.0, 1.0))
    return Task(
        at.targets.labels_B, at.options.ipc, at.targets.mean_GF, at.targets.var_GF, features_BD,
        recover.r_bn, recover.r_wb, recover.lr, (recover.beta1, recover.beta2), iterations,
        recover.crop_min, min(recover.roll, at.options.resolution - 1), low, high,
    )  # fmt: skip


def product(at: Problem, iterations: int, after: Callable[[int], None] = lambda _done: None) -> torch.Tensor:
    """The chunk's uint8 images after so many iterations of the product, everything included that a run does.

    ``after`` is told how many are done, at the moment at which a run looks whether it was asked to stop.
    """
    done = 0

    def interrupted() -> bool:
        nonlocal done
        done += 1
        after(done)
        return False

    config = configured(at, iterations)
    with fresh_run(at.options, config, interrupted) as ctx, looking_into(at.network, at.data.resolution) as forward:
        course = Course(ctx, 1, 1)
        return finished(recover_chunk(ctx, at.data, [(forward, at.targets)], at.chunk, 1, "measurement", course))


def baseline(at: Problem, iterations: int) -> None:
    """So many iterations of the plain loop, hooks and optimiser included."""
    recovery = Recovery(at.images_BCHW, at.plain, task_of(at, iterations))
    recovery.run(iterations)
    recovery.close()


def shared_view(views: Views) -> View:
    """The first of the product's views, made with torchvision's functions."""
    top, left, height, width = (int(value) for value in views.boxes_N4[0])
    rows, columns = (int(value) for value in views.rolls_N2[0])
    flip = bool(views.flips_N[0])

    def view(images: torch.Tensor) -> torch.Tensor:
        size = images.shape[-1]
        found = picture.resized_crop(images, top, left, height, width, [size, size], antialias=True)
        return torch.roll(picture.hflip(found) if flip else found, (rows, columns), (2, 3))

    return view


def agreement(at: Problem) -> dict[str, float]:
    """How far loss and image gradient of one step are apart, as configured and in fp32; relative."""
    recipe = recipe_of(at, 1)
    recovery = Recovery(at.images_BCHW, at.plain, task_of(at, 1))
    loss = recovery.loss(shared_view(recipe.views))
    gradient = torch.autograd.grad(loss, recovery.images)[0]
    recovery.close()
    found = {}
    with looking_into(at.network, at.data.resolution) as forward:
        for name, one in (("", recipe), ("_fp32", replace(recipe, bf16=False))):
            images = at.images_BCHW.clone().requires_grad_()
            terms, ours = loss_and_gradient(images, forward, one, 0)
            found[f"loss{name}"] = relative(terms.total, loss)
            found[f"gradient{name}"] = relative(ours, gradient)
    return found


def interleaved(at: Problem, block: int, repeats: int) -> Timings:
    """Blocks of iterations of the product's one optimisation and of the baseline's, by turns."""
    watch, found = Stopwatch(at.options.device), Timings()
    blocks = WARM_UP_BLOCKS + repeats
    recovery = Recovery(at.images_BCHW, at.plain, task_of(at, blocks * block))

    def after(done: int) -> None:
        if done % block:
            return
        mine = watch.stop()
        # PyTorch's default, whatever the product set around its steps.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True):
            watch.start()
            recovery.run(block)
            theirs = watch.stop()
        if done <= WARM_UP_BLOCKS * block:
            for side, seconds in (("baseline", theirs), ("product", mine)):
                found.warm_up[side] = found.warm_up.get(side, 0.0) + seconds
        else:
            found.baseline.append(theirs)
            found.product.append(mine)
        watch.start()

    watch.start()
    product(at, blocks * block, after)
    recovery.close()
    return found


def measure(options: Options) -> dict[str, Any]:
    """Figures of recovery."""
    at = problem(options)
    agreed = agreement(at)
    sides = {"baseline": lambda: baseline(at, BRIEF), "product": lambda: product(at, BRIEF)}
    images = len(at.chunk.labels_B)
    bf16 = recipe_of(at, 1).bf16
    timings = interleaved(at, options.iterations, options.repeats)
    found = compared(
        options, sides, images * options.iterations, "image-iterations", timings, sides, images * BRIEF, bf16
    )
    target = ">= 15,000 image-iterations/s, >= 8, memory <= 0.6" if options.device.type == "cuda" else ">= 1.6"
    return {**found, "agreement": agreed, "target": target}


def repetition(options: Options) -> tuple[Callable[[], object], float]:
    """One repetition of the product, and its image-iterations."""
    at = problem(options)
    return (lambda: product(at, options.iterations)), len(at.chunk.labels_B) * options.iterations
