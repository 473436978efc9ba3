"""Whether a stage's steps are compiled: decided once, from the size of the work, and kept in the run's configuration.

Compiling takes a minute or two before the first step. On a GPU it gives a fixed share of every step back: it joins
the network's elementwise operations, and in recovery the moments of its BatchNorm inputs, which are bound by memory
there. Where it is not possible the run goes on without, and says why.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Literal, cast

import torch
from torch import nn

from engine.config import to_toml
from engine.context import Context
from engine.memory import fits
from engine.models.instrument import multiplications
from engine.rundir import write_whole

Stage = Literal["squeeze", "recover", "train"]
#: What is trained, as a function of images.
Trained = Callable[[torch.Tensor], torch.Tensor]

#: Multiplications in the time of which compiling saves more than it takes: ten minutes of 100 · 10¹² a second.
WORTH = 600 * 100e12
#: Passes a step makes through the network: forward, and backward to the images, or to images and weights.
PASSES: dict[Stage, int] = {"squeeze": 3, "recover": 2, "train": 3}


def missing(device: torch.device) -> str:
    """What compiling for a device lacks on this machine; empty where nothing does."""
    names = ("CC", "gcc", "clang") if device.type == "cuda" else ("CXX", "g++", "clang++")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not any(shutil.which(os.environ.get(names[0], "") or name) for name in names[1:]):
        return f"no compiler was found ({names[1]} or {names[2]}, or what {names[0]} names)"
    return ""


def repays(stage: Stage, device: torch.device, network: nn.Module, resolution: int, images: float) -> bool:
    """Whether a stage that sees so many images (counted in every step) repays compiling.

    Not on a CPU: there ResNets were slower for it, 0.87 and 0.93 times, and only ConvNets faster
    (``benchmarks/LOG.md``).
    """
    if device.type != "cuda":
        return False
    training = network.training
    try:
        return PASSES[stage] * multiplications(network.eval(), resolution) * images > WORTH
    finally:
        network.train(training)


def settle_compilation(ctx: Context, stage: Stage, network: nn.Module, images: float) -> bool:
    """Whether the steps of a stage that sees so many images are compiled.

    What "auto" comes to is put in its place, in ``ctx`` and in the run's config.toml, so that a resumed run does the
    same. Where the compiler is missing that is warned of.
    """
    options = getattr(ctx.config, stage)
    if options.compile == "off":
        return False
    if options.compile == "auto" and not repays(stage, ctx.device, network, ctx.config.data.resolution, images):
        return False
    lacking = missing(ctx.device)
    if lacking:
        ctx.warn(f"{stage}: steps are not compiled, since {lacking}; the result is the same, and takes longer")
    settled = options.model_copy(update={"compile": "auto" if lacking else "on"})
    ctx.config = ctx.config.model_copy(update={stage: settled})
    if options.compile == "auto" and ctx.group.leads and not lacking:
        write_whole(ctx.run.config_file, to_toml(ctx.config).encode())
    return not lacking


def failure_of(compiling: Callable[[], object]) -> str:
    """Do what compiles. Why it is not possible, in one line; empty where it is, or where memory decides.

    What is wrong with the step itself is raised again by the step that is not compiled.
    """
    try:
        fits(compiling)
    except RuntimeError as error:  # as are those of the compiler; under PyTorch 2.6 a backward pass raises it itself
        return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    return ""


def compiled_training(
    ctx: Context, stage: Stage, network: nn.Module, trained: nn.Module, ranks: int, images: float, batch: int
) -> Trained:
    """What trains ``network`` (``trained``: itself, or the ranks' common one), compiled where the stage settles on it,
    for batches of ``batch`` images; an epoch's last, smaller one is not worth it.

    Compiling happens on the first images it is given, in the surroundings of that step, and leaves no trace in the
    network. Only where one process trains alone: ranks would have to fail alike.
    """
    if ranks > 1:
        if getattr(ctx.config, stage).compile == "on":
            ctx.warn_once(f"{stage}: steps are not compiled, since several devices share them")
        return trained
    if not settle_compilation(ctx, stage, network, images):
        return trained
    chosen: Trained | None = None

    def forward(images_NCHW: torch.Tensor) -> torch.Tensor:
        nonlocal chosen
        if len(images_NCHW) != batch:
            return cast(torch.Tensor, trained(images_NCHW))
        if chosen is None:
            ctx.log(f"{stage}: compiling the step")
            compiled: Trained = torch.compile(trained, dynamic=False)
            failure = failure_of(partial(_rehearse, compiled, network, images_NCHW))
            if failure:
                ctx.warn(f"{stage}: steps are not compiled: {failure}")
            chosen = trained if failure else compiled
        return chosen(images_NCHW)

    return forward


def _rehearse(compiled: Trained, network: nn.Module, images_NCHW: torch.Tensor) -> None:
    """Forward and backward once, after which the network is as before."""
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    devices = [images_NCHW.device] if images_NCHW.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            compiled(images_NCHW).float().sum().backward()
    finally:
        network.load_state_dict(kept)
        network.zero_grad(set_to_none=True)
