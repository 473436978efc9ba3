"""What both sides work on: images of the right shape, a teacher that has seen them, a run directory to report into.

Nothing is downloaded. Shapes: N images, C classes, H = W pixels, D feature size.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from benchmarks.harness.options import Options
from engine import checkpoints, events, models, rundir
from engine.config import RunConfig, from_dict, override
from engine.context import Context
from engine.data import Dataset, normalise
from engine.data.source import ResidentSource
from engine.errors import ConfigError
from engine.softlabels import SyntheticSet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Different pictures of a class; further images are these, shifted.
PICTURES = 16
VALIDATION = 20


def settings(options: Options, **sections: dict[str, object]) -> RunConfig:
    """The product's configuration of a measurement. Raises ConfigError for an impossible ``--set``."""
    values = RunConfig().model_dump(mode="json")
    changes: dict[str, dict[str, object]] = {
        "data": {"resolution": options.resolution},
        "teacher": {"arch": options.arch},
        "statistics": {"loading_batch": 100},
        "recover": {"batch_size": options.batch or 100, "preview_every": 0, "checkpoint_every": 10**6},
        "run": {
            "device": str(options.device),
            "threads": options.threads,
            "use_cache": False,
            "checkpoint_seconds": 86400.0,
        },
    }
    for name, fields in (*changes.items(), *sections.items()):
        values[name] |= fields
    values |= {"ipc": options.ipc, "seed": options.seed}
    return override(from_dict(values, "the measurement"), options.settings)


def real_images(options: Options, images: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images (N, 3, H, W), class by class, and classes (N,): coloured patterns, alike within a class."""
    generator = torch.Generator().manual_seed(options.seed)
    size, count = options.resolution, images or options.images
    found = torch.empty(options.classes * count, 3, size, size, dtype=torch.uint8)
    for label in range(options.classes):
        common = torch.rand(1, 3, 4, 4, generator=generator)
        own = torch.rand(min(PICTURES, count), 3, 8, 8, generator=generator)
        picture = 0.6 * _enlarged(common, size) + 0.4 * _enlarged(own, size)
        picture += 0.1 * torch.randn(picture.shape, generator=generator)
        pictures = picture.clamp(0, 1).mul(255).to(torch.uint8)
        for ordinal in range(count):
            shift = (7 * (ordinal // PICTURES)) % size
            found[label * count + ordinal] = pictures[ordinal % PICTURES].roll((shift, 2 * shift), (1, 2))
    return found, torch.arange(options.classes).repeat_interleave(count)


def _enlarged(small: torch.Tensor, size: int) -> torch.Tensor:
    return functional.interpolate(small, size=(size, size), mode="bilinear", align_corners=False)


def dataset(options: Options, images: int = 0) -> Dataset:
    """Training images on the device, and a few for validation."""
    images_NCHW, labels_N = real_images(options, images)
    val_NCHW, val_N = (
        images_NCHW[:: max(1, len(images_NCHW) // VALIDATION)],
        labels_N[:: max(1, len(labels_N) // VALIDATION)],
    )
    names = tuple(f"class{label}" for label in range(options.classes))
    return Dataset(
        "synthetic", names, names, options.resolution,
        ResidentSource(images_NCHW, labels_N, options.device), ResidentSource(val_NCHW, val_N, options.device),
        "synthetic", MEAN, STD, outputs=options.classes,
    )  # fmt: skip


def synthetic_set(options: Options) -> SyntheticSet:
    """IPC images a class, as recovery leaves them."""
    images_NCHW, labels_N = real_images(options, options.ipc)
    return SyntheticSet(images_NCHW, labels_N, torch.full((len(labels_N),), 1 / options.ipc))


def teacher(options: Options) -> nn.Module:
    """A network in eval mode, frozen, whose BatchNorm layers have seen images: activations are of the usual size."""
    network = models.build(options.arch, options.classes, options.resolution)
    models.initialise(network, options.seed, "teacher")
    images_NCHW, _ = real_images(options, max(2, 64 // options.classes))
    network.train()
    with torch.no_grad():
        for batch in normalise(images_NCHW[:128], MEAN, STD).split(32):
            network(batch)
    return network.to(options.device).eval().requires_grad_(False)


def validation(data: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """The validation images and classes, on the host."""
    return data.val.batch(torch.arange(len(data.val))).cpu(), data.val.labels_N


def features(options: Options) -> list[npt.NDArray[np.float64]]:
    """Features (n, D) of each class: those of a run's teacher, or rectified mixtures of eight Gaussians, as sparse as
    pooled activations are. Raises ConfigError for a file that is no run's.
    """
    if options.features is not None:
        return real_features(options.features, options.classes)
    random = np.random.default_rng(options.seed)
    found = []
    for _ in range(options.classes):
        centres = random.normal(0.3, 0.6, (8, options.dims))
        member = random.integers(0, 8, options.images)
        found.append(np.maximum(centres[member] + 0.4 * random.normal(size=(options.images, options.dims)), 0))
    return found


def real_features(path: Path, classes: int) -> list[npt.NDArray[np.float64]]:
    """Features (n, D) of the first classes in a file of the artifact cache; labels stand in the file beside it."""
    beside = path.with_name(path.name.replace("features-", "statistics-")).with_suffix(".ckpt")
    try:
        features_ND = np.load(path, mmap_mode="r", allow_pickle=False)
        labels_N = checkpoints.read(beside).tensors["labels_N"].numpy()
        found = [features_ND[labels_N == label].astype(np.float64) for label in range(classes)]
    except (*checkpoints.DAMAGE, IndexError) as error:
        raise ConfigError(
            f"--features {path} holds no features of a run ({type(error).__name__} in reading it)",
            "give a file features-KEY.npy of the folder cache beside the runs; statistics-KEY.ckpt must lie there too",
        ) from None
    return [one for one in found if len(one)]


@contextmanager
def fresh_run(
    options: Options, config: RunConfig, interrupted: Callable[[], bool] = lambda: False
) -> Iterator[Context]:
    """A run directory that is removed afterwards, and events written to its file as a run does."""
    run = rundir.create(config)
    writer = events.Writer(run.events_file)
    try:
        yield Context(config, options.device, run, writer.write, interrupted, lambda: False)
    finally:
        writer.close()
        shutil.rmtree(run.path)
