"""Random views of images: crop, resize, flip and roll, as two matrix products a batch.

Bilinear resizing with antialiasing is linear and separable, and so are flips and rolls: a view is
``rows @ image @ columns.T`` with one pair of small matrices an image (or one pair for the whole batch).
The result equals ``interpolate(crop, mode="bilinear", antialias=True)`` followed by flip and roll, is
differentiable, and has no data-dependent shape, so one step can be captured once for all views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from engine.randomness import generator

RATIO = (3 / 4, 4 / 3)
TRIES = 10


@dataclass(frozen=True)
class Views:
    """Views of N images (or one shared view, N = 1). ``boxes_N4`` = top, left, height, width in pixels."""

    boxes_N4: torch.Tensor
    flips_N: torch.Tensor
    rolls_N2: torch.Tensor

    def __getitem__(self, index: torch.Tensor | slice) -> Views:
        return Views(self.boxes_N4[index], self.flips_N[index], self.rolls_N2[index])

    def to(self, device: torch.device) -> Views:
        """The same on a device, without waiting for what it is doing."""
        return Views(*(one.to(device, non_blocking=True) for one in (self.boxes_N4, self.flips_N, self.rolls_N2)))

    def at(self, iteration: torch.Tensor, count: int) -> Views:
        """The ``count`` views of an iteration, a number on the device: the host never learns it."""
        index = iteration * count + torch.arange(count, device=iteration.device)
        return Views(*(one.index_select(0, index) for one in (self.boxes_N4, self.flips_N, self.rolls_N2)))


def draw_views(
    count: int, size: int, crop_min: float | torch.Tensor, flip: bool, roll: int, seed: int, *keys: str | int
) -> Views:
    """Draw ``count`` RandomResizedCrop boxes (area share in (crop_min, 1), ratio 3/4..4/3), flips and rolls 0..roll.

    ``crop_min`` may be a tensor of ``count`` bounds (a curriculum). As torchvision does, a box that would leave the
    image is drawn again up to ten times, then the whole image is taken.
    """
    draws = torch.rand((count, 3 + 2 * TRIES), generator=generator(seed, *keys))
    bound = torch.as_tensor(crop_min, dtype=torch.float32).reshape(-1, 1)
    area = (bound + (1 - bound) * draws[:, 3 : 3 + TRIES]) * size * size
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * draws[:, 3 + TRIES :])
    widths, heights = torch.round(torch.sqrt(area * ratio)), torch.round(torch.sqrt(area / ratio))
    fits = (widths >= 1) & (widths <= size) & (heights >= 1) & (heights <= size)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.any(1)
    width = torch.where(found, widths.gather(1, first)[:, 0], size)
    height = torch.where(found, heights.gather(1, first)[:, 0], size)
    top = torch.floor(draws[:, 0] * (size - height + 1))
    left = torch.floor(draws[:, 1] * (size - width + 1))
    flips = (draws[:, 2] < 0.5) if flip else torch.zeros(count, dtype=torch.bool)
    rolls = torch.randint(0, roll + 1, (count, 2), generator=generator(seed, *keys, "roll"))
    return Views(torch.stack([top, left, height, width], dim=1), flips, rolls)


def _resize_weights(start_N: torch.Tensor, length_N: torch.Tensor, size: int, out: int) -> torch.Tensor:
    """Antialiased bilinear weights (N, out, size) that resize ``length`` pixels from ``start`` to ``out`` pixels."""
    scale = (length_N / out)[:, None, None]
    centre = (torch.arange(out, dtype=torch.float32, device=start_N.device)[None, :, None] + 0.5) * scale
    pixel = torch.arange(size, dtype=torch.float32, device=start_N.device)[None, None, :] - start_N[:, None, None]
    inside = (pixel >= 0) & (pixel < length_N[:, None, None])
    weights = (1 - ((pixel + 0.5 - centre) / scale.clamp(min=1)).abs()).clamp(min=0) * inside
    return weights / weights.sum(dim=2, keepdim=True)


def view_matrices(views: Views, size: int, out: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column matrices (N, out, size) of the views of square images of ``size`` pixels."""
    out = out or size
    top, left, height, width = views.boxes_N4.float().unbind(1)
    rows = _resize_weights(top, height, size, out)
    columns = _resize_weights(left, width, size, out)
    columns = torch.where(views.flips_N[:, None, None], columns.flip(1), columns)
    target = torch.arange(out, device=rows.device)[None, :]
    rows = _take_rows(rows, (target - views.rolls_N2[:, :1]) % out)
    return rows, _take_rows(columns, (target - views.rolls_N2[:, 1:]) % out)


def _take_rows(matrices: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return torch.gather(matrices, 1, index[:, :, None].expand(-1, -1, matrices.shape[2]))


def apply_matrices(images_NCHW: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """``rows @ image @ columns.T`` for each image and channel; one pair of matrices (N = 1) serves all."""
    return rows[:, None] @ images_NCHW @ columns[:, None].transpose(2, 3)


def apply_views(images_NCHW: torch.Tensor, views: Views, out: int | None = None) -> torch.Tensor:
    """The views of float images, on the images' device."""
    rows, columns = view_matrices(views.to(images_NCHW.device), images_NCHW.shape[-1], out)
    return apply_matrices(images_NCHW, rows, columns)
