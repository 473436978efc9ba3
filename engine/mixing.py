"""The augmented, mixed images of one epoch, as a function of (seed, epoch) alone.

CutMix and MixUp work in *mix groups*: consecutive images of the epoch's seeded order share one λ and one box, and
their partners are a permutation within the group (as FKD's batches have it), so that batch sizes of relabel and
student are free. Shapes: N images, B positions of a batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch.utils.data import RandomSampler

from engine.augment import Views, apply_views, draw_views
from engine.config import RelabelConfig
from engine.data import ImageSource, normalise
from engine.randomness import derive_seed, permutation


class Decoded:
    """Real images in normalised space by position, as a tensor (N, 3, H, W) would give them, decoded when asked for."""

    def __init__(
        self, source: ImageSource, size: int, device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self.device = device
        self.shape = torch.Size((len(source), 3, size, size))
        self._source, self._mean, self._std = source, mean, std

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index_B: torch.Tensor) -> torch.Tensor:
        return normalise(self._source.batch(index_B.cpu()), self._mean, self._std)


class Kept:
    """uint8 images (N, 3, H, W) on a device, in normalised space where they are asked for: a quarter of its memory."""

    def __init__(self, images_NCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.device, self.shape = images_NCHW.device, images_NCHW.shape
        self._images_NCHW, self._mean, self._std = images_NCHW, mean, std

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index_B: torch.Tensor) -> torch.Tensor:
        return normalise(self._images_NCHW[index_B], self._mean, self._std)


Pictures = torch.Tensor | Decoded | Kept


def cut_box(size: int, lam: float, draws: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of CutMix's box: side ratio sqrt(1 - λ), uniform centre, clipped to the image."""
    side = int(size * math.sqrt(1 - lam))
    centre_y, centre_x = (min(size - 1, int(draw * size)) for draw in draws)
    top, bottom = max(0, centre_y - side // 2), min(size, centre_y + side // 2)
    left, right = max(0, centre_x - side // 2), min(size, centre_x + side // 2)
    return top, left, bottom, right


#: Seed of the sampler whose order FKD's label files rely on.
FKD_SEED = 42


class _Sampler:
    """The orders of FKD's one sampler, epoch after epoch: each is drawn from the generator the one before left."""

    def __init__(self, images: int) -> None:
        self._images = images
        self._begin()

    def _begin(self) -> None:
        source = range(self._images)
        self._sampler = RandomSampler(source, generator=torch.Generator().manual_seed(FKD_SEED))
        self._next = 0

    def order(self, epoch: int) -> torch.Tensor:
        if epoch < self._next:
            self._begin()
        while self._next <= epoch:
            self._next += 1
            # To its end: the sampler draws once more behind its last image.
            order = list(self._sampler)
        return torch.tensor(order, dtype=torch.int64)


@lru_cache(maxsize=2)
def _sampler(images: int) -> _Sampler:
    return _Sampler(images)


def fkd_order(images: int, epoch: int) -> torch.Tensor:
    """The image at each position (N,) of an epoch of FKD: a ``RandomSampler`` of seed 42, epochs counted from 0.

    Positions in the order of ImageFolder, which is class by class where folders sort as classes do. Asked for epochs
    in a row, each costs one permutation.
    """
    return _sampler(images).order(epoch)


@dataclass(frozen=True)
class EpochPlan:
    """Order, views, partners, λ and boxes of one epoch.

    ``order_N`` holds the image at each position; ``partner_N`` the image mixed into it; ``lam_N`` the share of the
    position's own image (for CutMix of the box's real area). ``views`` are by image; a box of ``boxes_N4`` is top,
    left, bottom, right in pixels of images of ``size``.
    """

    size: int
    mix: Literal["cutmix", "mixup", "none"]
    order_N: torch.Tensor
    views: Views
    partner_N: torch.Tensor
    lam_N: torch.Tensor
    boxes_N4: torch.Tensor

    def images(self, source_NCHW: Pictures, rows: slice) -> torch.Tensor:
        """Mixed views (B, 3, H, W) of the positions ``rows``; ``source_NCHW`` is the whole normalised set."""
        device = source_NCHW.device
        own, partner = self.order_N[rows], self.partner_N[rows]
        own_views = apply_views(source_NCHW[own.to(device, non_blocking=True)], self.views[own])
        if self.mix == "none":
            return own_views
        partner_views = apply_views(source_NCHW[partner.to(device, non_blocking=True)], self.views[partner])
        if self.mix == "mixup":
            lam_B = self.lam_N[rows].to(device, non_blocking=True)[:, None, None, None]
            return lam_B * own_views + (1 - lam_B) * partner_views
        top, left, bottom, right = self.boxes_N4[rows].to(device, non_blocking=True)[:, :, None, None].unbind(1)
        line = torch.arange(self.size, device=device)
        inside_y = (line[None, :, None] >= top) & (line[None, :, None] < bottom)
        inside_x = (line[None, None, :] >= left) & (line[None, None, :] < right)
        return torch.where((inside_y & inside_x)[:, None], partner_views, own_views)


def draw_plan(images: int, size: int, config: RelabelConfig, seed: int, epoch: int) -> EpochPlan:
    """The plan of an epoch over so many images of ``size`` pixels, a function of its arguments alone."""
    order_N = permutation(images, seed, "train-order", epoch) if config.order == "seeded" else fkd_order(images, epoch)
    views = draw_views(images, size, config.crop_min, config.flip, 0, seed, "relabel", epoch)
    partner_N, lam_N = order_N.clone(), torch.ones(images)
    boxes_N4 = torch.zeros(images, 4, dtype=torch.int64)
    if config.mix != "none":
        for group, start in enumerate(range(0, images, config.mix_group)):
            rows = slice(start, min(start + config.mix_group, images))
            random = np.random.default_rng(derive_seed(seed, "mix", epoch, group))
            members = order_N[rows]
            partner_N[rows] = members[torch.from_numpy(random.permutation(len(members)))]
            lam = float(random.beta(config.alpha, config.alpha))
            if config.mix == "cutmix":
                box = cut_box(size, lam, (float(random.random()), float(random.random())))
                boxes_N4[rows] = torch.tensor(box)
                lam = 1 - (box[2] - box[0]) * (box[3] - box[1]) / size**2
            lam_N[rows] = lam
    return EpochPlan(size, config.mix, order_N, views, partner_N, lam_N, boxes_N4)
