"""The augmented, mixed images of one epoch, as a function of (seed, epoch) alone.

CutMix and MixUp work in *mix groups*: consecutive images of the epoch's seeded order share one λ and one box, and
their partners are a permutation within the group (as FKD's batches have it), so that batch sizes of relabel and
student are free. Shapes: N images, B positions of a batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from engine.augment import Views, apply_views, draw_views
from engine.config import RelabelConfig
from engine.randomness import derive_seed, permutation


def cut_box(size: int, lam: float, draws: tuple[float, float]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of CutMix's box: side ratio sqrt(1 - λ), uniform centre, clipped to the image."""
    side = int(size * math.sqrt(1 - lam))
    centre_y, centre_x = (min(size - 1, int(draw * size)) for draw in draws)
    top, bottom = max(0, centre_y - side // 2), min(size, centre_y + side // 2)
    left, right = max(0, centre_x - side // 2), min(size, centre_x + side // 2)
    return top, left, bottom, right


class EpochPlan:
    """Order, views, partners, λ and boxes of one epoch.

    ``order_N`` holds the image at each position; ``partner_N`` the image mixed into it; ``lam_N`` the share of the
    position's own image (for CutMix of the box's real area).
    """

    def __init__(self, images: int, size: int, config: RelabelConfig, seed: int, epoch: int) -> None:
        self._config = config
        self._size = size
        self.order_N = permutation(images, seed, "train-order", epoch)
        self.views: Views = draw_views(images, size, config.crop_min, config.flip, 0, seed, "relabel", epoch)
        self.partner_N = self.order_N.clone()
        self.lam_N = torch.ones(images)
        self.boxes_N4 = torch.zeros(images, 4, dtype=torch.int64)
        if config.mix == "none":
            return
        for group, start in enumerate(range(0, images, config.mix_group)):
            rows = slice(start, min(start + config.mix_group, images))
            self._mix_group(rows, np.random.default_rng(derive_seed(seed, "mix", epoch, group)))

    def _mix_group(self, rows: slice, random: np.random.Generator) -> None:
        members = self.order_N[rows]
        self.partner_N[rows] = members[torch.from_numpy(random.permutation(len(members)))]
        lam = float(random.beta(self._config.alpha, self._config.alpha))
        if self._config.mix == "cutmix":
            box = cut_box(self._size, lam, (float(random.random()), float(random.random())))
            self.boxes_N4[rows] = torch.tensor(box)
            lam = 1 - (box[2] - box[0]) * (box[3] - box[1]) / self._size**2
        self.lam_N[rows] = lam

    def images(self, source_NCHW: torch.Tensor, rows: slice) -> torch.Tensor:
        """Mixed views (B, 3, H, W) of the positions ``rows``; ``source_NCHW`` is the whole normalised set."""
        device = source_NCHW.device
        own, partner = self.order_N[rows], self.partner_N[rows]
        own_views = apply_views(source_NCHW[own.to(device)], self.views[own])
        if self._config.mix == "none":
            return own_views
        partner_views = apply_views(source_NCHW[partner.to(device)], self.views[partner])
        if self._config.mix == "mixup":
            lam_B = self.lam_N[rows].to(device)[:, None, None, None]
            return lam_B * own_views + (1 - lam_B) * partner_views
        top, left, bottom, right = self.boxes_N4[rows].to(device)[:, :, None, None].unbind(1)
        line = torch.arange(self._size, device=device)
        inside_y = (line[None, :, None] >= top) & (line[None, :, None] < bottom)
        inside_x = (line[None, None, :] >= left) & (line[None, None, :] < right)
        return torch.where((inside_y & inside_x)[:, None], partner_views, own_views)
