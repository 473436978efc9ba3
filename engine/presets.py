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
    """WMDD (Liu et al., ICCV 2025) on ImageNette at 224 px, ResNet-18: hyper-parameters and semantics of its code."""
    return _derive(
        RunConfig(),
        f"imagenette-paper-ipc{ipc}",
        ipc=ipc,
        data={"dataset": "imagefolder", "path": "$WMDD_DATA/imagenette", "resolution": 224, "crop": 0.875},
        teacher={"arch": "resnet18"},
        statistics={"variance": "batch-averaged"},
        train={"batch_size": 100 if ipc >= 10 else 10 * ipc},
    )


#: Where the images start and how they move in the best presets; each ingredient is a row of docs/results.md.
BEST_RECOVER: dict[str, Any] = {
    "init": "patches", "patches_per_image": 4, "augment": "per-image", "lr": 0.05, "iterations": 1000,
}  # fmt: skip
#: How the best presets' student learns: many small batches that mix among themselves, a mean of its weights at the end.
BEST_TRAIN: dict[str, Any] = {"epochs": 600, "schedule": "smoothed-cosine", "ema": 0.99}


def imagenette_best(ipc: int) -> RunConfig:
    """ImageNette at 224 px past the paper: WMDD from real patches, exact variance, small student batches, EMA."""
    batch = min(10 * ipc, 50)
    return _derive(
        imagenette_paper(ipc),
        f"imagenette-best-ipc{ipc}",
        statistics={"variance": "exact"},
        recover=BEST_RECOVER,
        relabel={"mix_group": batch},
        train={**BEST_TRAIN, "batch_size": batch, "eval_every": 50},
    )


def imagenette_weighted(ipc: int) -> RunConfig:
    """WMDD as Liu et al. (ICCV 2025) write it: optimised weights, also in BN statistics and the student's loss."""
    return _derive(
        imagenette_paper(ipc),
        f"imagenette-weights-ipc{ipc}",
        barycenter={"weights": "optimized"},
        statistics={"variance": "exact"},
    )


#: Options of the four cells of WMDD's ablation. Global BN is the older script's: chunks hold one image of each class,
#: the first BN layer counts ten times, and the feature term takes the place of cross-entropy.
CELLS: dict[str, dict[str, dict[str, Any]]] = {
    "w-pcbn": {},
    "ce-pcbn": {"barycenter": {"weights": "none"}, "recover": {"objective": "sre2l"}},
    "w-bn": {"recover": {"bn": "global", "chunk": "across-classes", "first_bn_multiplier": 10.0, "r_wb": 0.0}},
    "ce-bn": {
        "barycenter": {"weights": "none"},
        "recover": {"objective": "sre2l", "bn": "global", "chunk": "across-classes", "first_bn_multiplier": 10.0},
    },
}


def ablation(cell: str) -> RunConfig:
    """A cell of the ablation of Liu et al. (ICCV 2025), ImageNette: Wasserstein or CE × per-class or global BN."""
    return _derive(imagenette_paper(10), f"imagenette-ablation-{cell}", **CELLS[cell])


#: SRe2L's recovery: cross-entropy and global BN with the first layer ten times, images of different classes together.
SRE2L_RECOVER: dict[str, Any] = {
    "objective": "sre2l", "bn": "global", "chunk": "across-classes", "first_bn_multiplier": 10.0,
}  # fmt: skip


def sre2l_imagenet1k(ipc: int) -> RunConfig:
    """SRe2L (Yin et al., NeurIPS 2023) on ImageNet-1K: 4000 iterations, λ = 0.01, student batches of 2 × 512."""
    return _derive(
        imagenet1k(ipc),
        f"sre2l-imagenet1k-ipc{ipc}",
        statistics={"variance": "exact"},
        barycenter={"weights": "none"},
        recover={**SRE2L_RECOVER, "iterations": 4000, "lr": 0.25, "r_bn": 0.01},
        relabel={"mix_group": 1024},
        train={"batch_size": 1024, "accumulate": 2},
    )


def sre2l_tiny_imagenet(ipc: int) -> RunConfig:
    """SRe2L (Yin et al., NeurIPS 2023) on Tiny-ImageNet at 64 px: λ = 1, teacher and student by SGD, labels online."""
    return _derive(
        imagenette_paper(ipc),
        f"sre2l-tiny-imagenet-ipc{ipc}",
        data={"path": "$WMDD_DATA/tiny-imagenet", "resolution": 64, "crop": 1.0},
        teacher={"stem": "small"},
        squeeze={"lr": 0.2, "batch_size": 256, "warmup_epochs": 5},
        statistics={"variance": "exact"},
        barycenter={"weights": "none"},
        recover={**SRE2L_RECOVER, "iterations": 4000, "lr": 0.1, "r_bn": 1.0, "roll": 4, "roll_both": True},
        relabel={"storage": "online", "mix": "none"},
        train={
            "optimizer": "sgd", "lr": 0.2, "weight_decay": 1e-4, "warmup_epochs": 5, "epochs": 100, "batch_size": 256,
        },
    )  # fmt: skip


def sre2l_cifar100(ipc: int) -> RunConfig:
    """SRe2L (Yin et al., NeurIPS 2023) on CIFAR-100: whole images, only shifted, in recovery; MixUp, T = 30, online."""
    return _derive(
        cifar("cifar100", ipc),
        f"sre2l-cifar100-ipc{ipc}",
        squeeze={"epochs": 200},
        barycenter={"weights": "none"},
        recover={**SRE2L_RECOVER, "iterations": 1000, "lr": 0.25, "r_bn": 0.01, "crop_min": 1.0, "flip": False},
        relabel={"storage": "online", "mix": "mixup", "alpha": 0.8, "mix_group": 128, "crop_min": 0.5},
        train={"epochs": 400, "batch_size": 128, "temperature": 30.0},
    )


def cda_imagenet1k(ipc: int) -> RunConfig:
    """CDA (Yin and Shen, TMLR 2024) on ImageNet-1K: SRe2L with crops that shrink along a cosine over all iterations."""
    return _derive(
        sre2l_imagenet1k(ipc),
        f"cda-imagenet1k-ipc{ipc}",
        recover={"curriculum": "cosine"},
    )


def cda_tiny_imagenet(ipc: int) -> RunConfig:
    """CDA (Yin and Shen, TMLR 2024) on Tiny-ImageNet at 64 px: λ = 0.05, learning rate 0.4, cosine curriculum."""
    return _derive(
        sre2l_tiny_imagenet(ipc),
        f"cda-tiny-imagenet-ipc{ipc}",
        recover={"lr": 0.4, "r_bn": 0.05, "curriculum": "cosine", "roll_both": False},
    )


def cda_imagenet21k(ipc: int) -> RunConfig:
    """CDA (Yin and Shen, TMLR 2024) on ImageNet-21K-P (Winter 2021): 2000 iterations, λ = 0.25, colours as they are."""
    return _derive(
        cda_imagenet1k(ipc),
        f"cda-imagenet21k-ipc{ipc}",
        data={"path": "$WMDD_DATA/imagenet21k", "normalise": "none"},
        teacher={"source": "checkpoint", "path": "$WMDD_DATA/imagenet21k-resnet18.pth", "weights": "DEFAULT"},
        # Statistics of 10,450 classes, which this recovery does not use, and 1.3 TB of stored labels are left out.
        recover={"iterations": 2000, "lr": 0.05, "r_bn": 0.25, "quality": False},
        relabel={"storage": "online"},
    )


def imagenette64_quick() -> RunConfig:
    """ImageNette at 64 px, ConvNet-D4 of width 32, short stages: from squeeze to student in minutes on two cores."""
    return _derive(
        imagenette_paper(10),
        "imagenette64-quick",
        data={"resolution": 64, "crop": 1.0},
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
        data={"resolution": 64, "crop": 1.0},
        teacher={"stem": "standard"},
        recover={"roll": 9},
        train={"eval_every": 50},
    )


def imagenette64_best() -> RunConfig:
    """Past the paper at 64 px and IPC 10: WMDD from photographs, small student batches, EMA; give teacher.path."""
    return _derive(
        imagenette64_peer(),
        "imagenette64-best",
        statistics={"variance": "exact"},
        recover={"init": "real", "augment": "per-image", "lr": 0.05, "iterations": 1000},
        relabel={"mix_group": 10},
        train={"batch_size": 10, "schedule": "smoothed-cosine", "ema": 0.99},
    )


def tiny_imagenet(ipc: int) -> RunConfig:
    """WMDD (Liu et al., ICCV 2025) on Tiny-ImageNet at 224 px with the authors' stem, λ = 500."""
    return _derive(
        imagenette_paper(ipc),
        f"tiny-imagenet-ipc{ipc}",
        data={"path": "$WMDD_DATA/tiny-imagenet"},
        teacher={"stem": "tiny"},
        recover={"r_bn": 500.0, "lr": 0.1},
        train={"batch_size": 100},
    )


def imagenet1k(ipc: int) -> RunConfig:
    """WMDD (Liu et al., ICCV 2025) on ImageNet-1K at 224 px, torchvision's ResNet-18; λ = 500 (theirs is untold)."""
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
    "imagenette64-best": imagenette64_best,
    **{f"imagenette-paper-ipc{ipc}": partial(imagenette_paper, ipc) for ipc in (1, 10, 50, 100)},
    **{f"imagenette-best-ipc{ipc}": partial(imagenette_best, ipc) for ipc in (1, 10, 50)},
    **{f"imagenette-weights-ipc{ipc}": partial(imagenette_weighted, ipc) for ipc in (10, 50)},
    **{f"imagenette-ablation-{cell}": partial(ablation, cell) for cell in CELLS},
    **{f"tiny-imagenet-ipc{ipc}": partial(tiny_imagenet, ipc) for ipc in (1, 10, 50, 100)},
    **{f"imagenet1k-ipc{ipc}": partial(imagenet1k, ipc) for ipc in (1, 10, 50, 100)},
    **{f"sre2l-imagenet1k-ipc{ipc}": partial(sre2l_imagenet1k, ipc) for ipc in (10, 50, 100)},
    **{f"sre2l-tiny-imagenet-ipc{ipc}": partial(sre2l_tiny_imagenet, ipc) for ipc in (50, 100)},
    "sre2l-cifar100-ipc50": partial(sre2l_cifar100, 50),
    **{f"cda-imagenet1k-ipc{ipc}": partial(cda_imagenet1k, ipc) for ipc in (10, 50, 100)},
    **{f"cda-tiny-imagenet-ipc{ipc}": partial(cda_tiny_imagenet, ipc) for ipc in (50, 100)},
    "cda-imagenet21k-ipc20": partial(cda_imagenet21k, 20),
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
