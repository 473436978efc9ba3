"""Whether recovery's step is compiled: decided once, from the size of the work, and kept in the run's configuration.

Compiling takes a minute or two before the first step. On a GPU it gives a fixed share of every step back: it joins
the network's elementwise operations and the moments of its BatchNorm inputs, which are bound by memory there.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch
from torch import nn

from engine.config import RunConfig, to_toml
from engine.context import Context
from engine.models.instrument import multiplications
from engine.rundir import write_whole

#: Multiplications in the time of which compiling saves more than it takes: ten minutes of 100 · 10¹² a second.
WORTH = 600 * 100e12


def missing(device: torch.device) -> str:
    """What compiling for a device lacks on this machine; empty where nothing does."""
    names = ("CC", "gcc", "clang") if device.type == "cuda" else ("CXX", "g++", "clang++")
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not any(shutil.which(os.environ.get(names[0], "") or name) for name in names[1:]):
        return f"no compiler was found ({names[1]} or {names[2]}, or what {names[0]} names)"
    return ""


def repays(config: RunConfig, device: torch.device, network: nn.Module, images: int) -> bool:
    """Whether the steps of so many synthetic images repay compiling; not on a CPU, where nobody has measured it."""
    if device.type != "cuda":
        return False
    forward = multiplications(network, config.data.resolution) * images * config.recover.iterations
    return 2 * forward > WORTH  # and backward to the images


def settle_compilation(ctx: Context, network: nn.Module, images: int) -> None:
    """Put what is done in the place of ``recover.compile = "auto"``, in ``ctx`` and in the run's config.toml.

    So a resumed run does the same. Where the compiler is missing "on" is warned of, and steps are not compiled.
    """
    recover = ctx.config.recover
    if recover.compile == "off" or recover.objective in ("real", "given", "start"):
        return
    if recover.compile == "auto" and not repays(ctx.config, ctx.device, network, images):
        return
    lacking = missing(ctx.device)
    if lacking:
        ctx.warn(f"recover: steps are not compiled, since {lacking}; the result is the same, and takes longer")
    settled = recover.model_copy(update={"compile": "auto" if lacking else "on"})
    ctx.config = ctx.config.model_copy(update={"recover": settled})
    if recover.compile == "auto" and ctx.group.leads and not lacking:
        write_whole(ctx.run.config_file, to_toml(ctx.config).encode())
