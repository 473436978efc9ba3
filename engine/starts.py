"""Where a chunk's images start: noise, random real photographs, or the best patches of real photographs.

Every image has a pool of photographs of its own: the photographs of its class in a seeded order are dealt round to the
class's images, so a start depends neither on the chunk an image is in nor on the number of processes. The first
photograph of each pool is the random real photograph that is the control (``real_indices``).

The idea of starting from patches the teacher is sure of, several to an image, is that of Sun et al. (RDED, CVPR 2024);
that of taking the patch whose feature is nearest to the image's barycenter is ours.

Shapes: B images of a chunk, N training images, Q photographs of a pool, P patches an image, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

from engine.augment import apply_views, draw_views
from engine.chunks import Chunk
from engine.config import RecoverConfig
from engine.data import Dataset, normalise
from engine.losses import Targets
from engine.models.instrument import Forward
from engine.randomness import generator, permutation

#: Photographs decoded and patches seen by the teacher at a time; part of the result only by rounding.
AT_A_TIME = 64
#: Told now and then how many images' patches are found; it may raise to stop.
Between = Callable[[int], None]


def initial_images(
    chunk: Chunk,
    dataset: Dataset,
    config: RecoverConfig,
    ipc: int,
    seed: int,
    probe: Forward,
    targets: Targets,
    between: Between = lambda _found: None,
) -> torch.Tensor:
    """Start (B, 3, H, W) in normalised space on the CPU, as ``recover.init`` names it.

    "noise": N(0, 1). "real": distinct random photographs of each class. "patches": see ``patched``; ``probe`` is the
    teacher that judges them, ``targets`` holds the barycenters.
    """
    if config.init == "noise":
        return noise(chunk, dataset.resolution, seed)
    if config.init == "real":
        index = real_indices(chunk, dataset.train.labels_N, seed)
        return normalise(dataset.train.batch(index), dataset.mean, dataset.std).cpu()
    return patched(chunk, dataset, config, ipc, seed, probe, targets, between)


def noise(chunk: Chunk, size: int, seed: int) -> torch.Tensor:
    """N(0, 1) in normalised space (B, 3, size, size), on the CPU."""
    return torch.stack(
        [
            torch.randn(3, size, size, generator=generator(seed, "recover-init", label, ordinal))
            for label, ordinal in _images_of(chunk)
        ]
    )


def real_indices(chunk: Chunk, labels_N: torch.Tensor, seed: int) -> torch.Tensor:
    """For each image of the chunk a training image of its class: the j-th of a seeded permutation."""
    pools = (_pool(labels_N, label, ordinal, 1, 1, seed) for label, ordinal in _images_of(chunk))
    return torch.cat([pool_Q[:1] for pool_Q in pools])


def patched(
    chunk: Chunk,
    dataset: Dataset,
    config: RecoverConfig,
    ipc: int,
    seed: int,
    probe: Forward,
    targets: Targets,
    between: Between = lambda _found: None,
) -> torch.Tensor:
    """Images (B, 3, H, W) of the best ``patches_per_image`` patches of each image's pool, normalised, on the CPU.

    From every photograph of the pool ``patch_crops`` random crops are cut (one alone is the whole photograph) and
    resized to a patch; the best of each photograph stands for it, and the best photographs' patches fill the image,
    side by side in rows. Best by ``patch_choice``: "confidence" is the teacher's cross-entropy with the class,
    "barycenter" the distance of the patch's feature to the image's barycenter.
    """
    patches = config.patches_per_image
    side = math.isqrt(patches)
    photographs = max(patches, config.patch_photos // ipc) if config.patch_photos else len(dataset.train.labels_N)
    images = []
    for position, (label, ordinal) in enumerate(_images_of(chunk)):
        pool_Q = _pool(dataset.train.labels_N, label, ordinal, ipc, photographs, seed)
        best_Q3HW, costs_Q = [], []
        for cut_R3HW, cost_R in _patches(pool_Q, dataset, config, probe, targets, position, label, ordinal, seed):
            best_Q3HW.append(cut_R3HW)
            costs_Q.append(cost_R)
            between(position)
        order_Q = torch.cat(costs_Q).argsort(stable=True)
        # A pool smaller than the image has places for gives its best patches again.
        chosen_P = order_Q[torch.arange(patches) % len(order_Q)]
        images.append(_mosaic(torch.cat(best_Q3HW)[chosen_P], side, dataset.resolution))
    return torch.stack(images)


def _images_of(chunk: Chunk) -> Iterator[tuple[int, int]]:
    """Class and ordinal of each image."""
    return zip(chunk.labels_B.tolist(), chunk.ordinals_B.tolist(), strict=True)


def _pool(labels_N: torch.Tensor, label: int, ordinal: int, ipc: int, most: int, seed: int) -> torch.Tensor:
    """At most so many photographs (Q,) of one image: every ipc-th of the class's seeded order, from the ordinal on."""
    members = (labels_N == label).nonzero().flatten()
    order = permutation(len(members), seed, "real-images", label)
    return members[order[ordinal % len(members) :: ipc][:most]]


def _patches(
    pool_Q: torch.Tensor,
    dataset: Dataset,
    config: RecoverConfig,
    probe: Forward,
    targets: Targets,
    position: int,
    label: int,
    ordinal: int,
    seed: int,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Some photographs at a time: the best patch of each (R, 3, h, w) and its cost (R,), on the CPU."""
    size = dataset.resolution
    patch = math.ceil(size / math.isqrt(config.patches_per_image))
    parts = pool_Q.split(AT_A_TIME)
    for number, photos_R3HW in enumerate(dataset.train.batches(parts)):
        pictures_R3HW = normalise(photos_R3HW, dataset.mean, dataset.std)
        found: list[torch.Tensor] = []
        costs: list[torch.Tensor] = []
        for turn in range(config.patch_crops):
            keys = ("patches", label, ordinal, number, turn)
            views = draw_views(len(pictures_R3HW), size, config.patch_crop_min, False, 0, seed, *keys)
            if turn == 0:  # the whole photograph is always among those compared
                views.boxes_N4[:] = torch.tensor([0, 0, size, size])
            cut_R3hw = apply_views(pictures_R3HW, views, patch)
            costs.append(_cost(cut_R3hw, size, config.patch_choice, probe, targets, position, label))
            found.append(cut_R3hw.cpu())
        cost_TR = torch.stack(costs)
        best_R = cost_TR.argmin(0)
        rows_R = torch.arange(len(best_R))
        yield torch.stack(found)[best_R, rows_R], cost_TR[best_R, rows_R]


@torch.no_grad()
def _cost(
    patches_R3hw: torch.Tensor, size: int, choice: str, probe: Forward, targets: Targets, position: int, label: int
) -> torch.Tensor:
    """What a patch costs (R,), on the CPU: less is better. The teacher sees it as large as an image."""
    if patches_R3hw.shape[-1] != size:
        patches_R3hw = functional.interpolate(patches_R3hw, size=size, mode="bilinear")
    logits_RC, features_RD, _ = probe(patches_R3hw)
    if choice == "barycenter":
        if targets.features_BD is None:
            raise ValueError("patches nearest to barycenters need barycenters")
        return (features_RD.float() - targets.features_BD[position]).square().sum(1).cpu()
    labels_R = torch.full((len(logits_RC),), label, device=logits_RC.device)
    return functional.cross_entropy(logits_RC.float(), labels_R, reduction="none").cpu()


def _mosaic(patches_P3hw: torch.Tensor, side: int, size: int) -> torch.Tensor:
    """P = side² patches in rows as one image (3, size, size); where they do not divide it, the last are cut off."""
    _, channels, height, width = patches_P3hw.shape
    grid = patches_P3hw.reshape(side, side, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, side * height, side * width)[:, :size, :size]
