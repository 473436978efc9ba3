"""Published and tried settings: functions that return a full RunConfig. Torch-free.

A preset for a downloadable set expects it under ``$WMDD_DATA``; ``--set data.path=…`` names another place.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from engine.config import RunConfig, from_dict
from engine.errors import ConfigError


def _derive(base: RunConfig, preset: str, **sections: Any) -> RunConfig:
    """A configuration with some fields of some sections replaced."""
    values = base.model_dump(mode="json")
    for name, fields in sections.items():
        if isinstance(fields, dict):
            values[name] |= fields
        else:
            values[name] = fields
    values["preset"] = preset
    return from_dict(values, f"preset {preset}")


def digits() -> RunConfig:
    """Handwritten digits (built in), ConvNet-D3, 10 images a class: the demo, about a minute on two cores."""
    return _derive(
        RunConfig(),
        "digits",
        squeeze={"epochs": 12, "batch_size": 64, "lr": 0.05, "crop_min": 0.6, "flip": False},
        statistics={"loading_batch": 100},
        recover={
            "iterations": 300, "lr": 0.1, "crop_min": 0.6, "flip": False, "roll": 1, "preview_every": 25,
            "checkpoint_every": 50,
        },
        relabel={"crop_min": 0.6, "flip": False},
        train={"epochs": 120, "batch_size": 20, "lr": 3e-3, "eval_every": 10},
    )  # fmt: skip


def digits_sre2l() -> RunConfig:
    """The digits demo with SRe2L's objective: cross-entropy and global BN, one image of each class a chunk."""
    return _derive(
        digits(),
        "digits-sre2l",
        barycenter={"weights": "none"},
        recover={"objective": "sre2l", "bn": "global", "chunk": "across-classes"},
    )


def imagenette_paper(ipc: int) -> RunConfig:
    """WMDD on ImageNette at 224 px, ResNet-18, hyper-parameters and semantics of the paper and its code."""
    return _derive(
        RunConfig(),
        f"imagenette-paper-ipc{ipc}",
        ipc=ipc,
        data={"dataset": "imagefolder", "path": "$WMDD_DATA/imagenette", "resolution": 224},
        teacher={"arch": "resnet18"},
        statistics={"variance": "batch-averaged"},
        train={"batch_size": 100 if ipc >= 10 else 10 * ipc},
    )


def imagenette64_quick() -> RunConfig:
    """ImageNette at 64 px, ConvNet-D4 of width 32, short stages: from squeeze to student in minutes on two cores."""
    return _derive(
        imagenette_paper(10),
        "imagenette64-quick",
        data={"resolution": 64},
        teacher={"arch": "convnet4", "width": 32},
        squeeze={"epochs": 8, "batch_size": 64, "lr": 0.1, "crop_min": 0.35, "warmup_epochs": 1},
        statistics={"variance": "exact"},
        recover={"iterations": 300, "lr": 0.1, "roll": 8, "preview_every": 25},
        train={"epochs": 200, "batch_size": 50, "lr": 2e-3, "eval_every": 50},
    )


def imagenette64_peer() -> RunConfig:
    """The authors' settings at 64 px with the stock ResNet-18 stem; give the teacher by teacher.path."""
    return _derive(
        imagenette_paper(10),
        "imagenette64-peer",
        data={"resolution": 64},
        teacher={"stem": "standard"},
        recover={"roll": 9},
        train={"eval_every": 50},
    )


def tiny_imagenet(ipc: int) -> RunConfig:
    """WMDD on Tiny-ImageNet at 224 px with the authors' stem, λ = 500."""
    return _derive(
        imagenette_paper(ipc),
        f"tiny-imagenet-ipc{ipc}",
        data={"path": "$WMDD_DATA/tiny-imagenet"},
        teacher={"stem": "tiny"},
        recover={"r_bn": 500.0, "lr": 0.1},
        train={"batch_size": 100},
    )


def imagenet1k(ipc: int) -> RunConfig:
    """WMDD on ImageNet-1K at 224 px with torchvision's ResNet-18; λ = 500 (the paper's is undocumented)."""
    return _derive(
        imagenette_paper(ipc),
        f"imagenet1k-ipc{ipc}",
        data={"path": "$WMDD_DATA/imagenet1k"},
        teacher={"source": "torchvision", "weights": "IMAGENET1K_V1"},
        recover={"r_bn": 500.0},
        train={"batch_size": 100},
    )


def cifar(kind: str, ipc: int) -> RunConfig:
    """CIFAR at 32 px with a small-stem ResNet-18."""
    return _derive(
        RunConfig(),
        f"{kind}-ipc{ipc}",
        ipc=ipc,
        data={"dataset": kind, "path": f"$WMDD_DATA/{kind}", "resolution": 32},
        teacher={"arch": "resnet18"},
        squeeze={"epochs": 100, "batch_size": 128, "lr": 0.1, "weight_decay": 5e-4, "crop_min": 0.5},
        recover={"roll": 4},
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "digits": digits,
    "digits-sre2l": digits_sre2l,
    "imagenette64-quick": imagenette64_quick,
    "imagenette64-peer": imagenette64_peer,
    **{f"imagenette-paper-ipc{ipc}": partial(imagenette_paper, ipc) for ipc in (1, 10, 50, 100)},
    **{f"tiny-imagenet-ipc{ipc}": partial(tiny_imagenet, ipc) for ipc in (1, 10, 50, 100)},
    **{f"imagenet1k-ipc{ipc}": partial(imagenet1k, ipc) for ipc in (1, 10, 50, 100)},
    **{f"{kind}-ipc{ipc}": partial(cifar, kind, ipc) for kind in ("cifar10", "cifar100") for ipc in (1, 10, 50)},
}


def get(name: str) -> RunConfig:
    """A preset's configuration. Raises ConfigError that suggests the nearest name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"unknown preset '{name}'{hint}", "`wmdd-tui presets` lists them")
    return PRESETS[name]()


def describe(name: str) -> str:
    """The preset's first line of help."""
    maker = PRESETS[name]
    function = maker.func if isinstance(maker, partial) else maker
    return (function.__doc__ or "").splitlines()[0]
