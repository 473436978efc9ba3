"""Soft labels and the student as fast knowledge distillation does them: a pickle for each batch of each epoch.

Every image's crop is made by itself in a loader, from decoded images in memory; fp32 and eager; ``.item()`` each step.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as picture

from benchmarks.baselines.squeeze import top1

Box = tuple[int, int, int, int]


class DrawnViews(Dataset[tuple[torch.Tensor, torch.Tensor, bool]]):
    """A random crop and flip of each image, with what was drawn: (view, box, flipped)."""

    def __init__(
        self, images_NCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...], crop_min: float, flip: bool
    ) -> None:
        self._images, self._crop_min, self._flip = images_NCHW, crop_min, flip
        self._normalise = transforms.Normalize(mean, std)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, bool]:
        image = self._images[index]
        box = transforms.RandomResizedCrop.get_params(image, [self._crop_min, 1.0], [3 / 4, 4 / 3])
        flip = self._flip and bool(torch.rand(()) < 0.5)
        return self._normalise(view(image, box, flip)), torch.tensor(box), flip


class GivenViews(Dataset[torch.Tensor]):
    """The crop and flip of each image that its label was made for."""

    def __init__(self, images_NCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._images = images_NCHW
        self._normalise = transforms.Normalize(mean, std)
        self.boxes: list[Box] = []
        self.flips: list[bool] = []

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> torch.Tensor:
        found: torch.Tensor = self._normalise(view(self._images[index], self.boxes[index], self.flips[index]))
        return found


def view(image_CHW: torch.Tensor, box: Box, flip: bool) -> torch.Tensor:
    """One image's crop, resized to the whole and flipped, as float in 0..1. ``box`` is top, left, height, width."""
    size = image_CHW.shape[-1]
    found = picture.resized_crop(image_CHW.float() / 255, *box, [size, size], antialias=True)
    return picture.hflip(found) if flip else found


def cut_box(size: int, lam: float, random: np.random.Generator) -> Box:
    """Top, left, bottom, right of a CutMix box that takes the share 1 − λ."""
    side = int(size * math.sqrt(1 - lam))
    y, x = (int(random.integers(size)) for _ in range(2))
    return max(0, y - side // 2), max(0, x - side // 2), min(size, y + side // 2), min(size, x + side // 2)


def mixed(images: torch.Tensor, order: torch.Tensor, box: Box) -> torch.Tensor:
    """Images with a box of their partner's."""
    top, left, bottom, right = box
    found = images.clone()
    found[:, :, top:bottom, left:right] = images[order][:, :, top:bottom, left:right]
    return found


def relabel(
    images_NCHW: torch.Tensor,
    teacher: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    epochs: int,
    batch: int,
    crop_min: float,
    folder: Path,
    device: torch.device,
    workers: int,
    mix: bool = True,
    flip: bool = True,
) -> None:
    """Write ``epoch_E/batch_B.tar`` for every batch of every epoch."""
    random = np.random.default_rng(0)
    data = DrawnViews(images_NCHW, mean, std, crop_min, flip)
    for epoch in range(epochs):
        place = folder / f"epoch_{epoch}"
        place.mkdir(parents=True, exist_ok=True)
        order = torch.randperm(len(data)).tolist()
        loader = DataLoader(data, batch, sampler=order, num_workers=workers)
        for number, (views, boxes, flips) in enumerate(loader):
            lam = float(random.beta(1.0, 1.0))
            partner = torch.from_numpy(random.permutation(len(views)))
            box = cut_box(views.shape[-1], lam, random) if mix else (0, 0, 0, 0)
            with torch.no_grad():
                logits = teacher(mixed(views.to(device), partner.to(device), box))
            index = order[number * batch : number * batch + len(views)]
            torch.save([index, boxes, flips, partner, lam, box, logits.half().cpu()], place / f"batch_{number}.tar")


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher ‖ student) of softened probabilities, mean over images, without T²."""
    return functional.kl_div(
        functional.log_softmax(student / temperature, 1),
        functional.softmax(teacher / temperature, 1),
        reduction="batchmean",
    )


class Student:
    """A student in training: ``run(epochs)`` does the next epochs from the label files, and judges at the end."""

    def __init__(
        self,
        network: nn.Module,
        images_NCHW: torch.Tensor,
        val: tuple[torch.Tensor, torch.Tensor],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        folder: Path,
        device: torch.device,
        workers: int,
        lr: float = 1e-3,
        temperature: float = 20.0,
    ) -> None:
        self.network, self._folder, self._device, self._workers = network, folder, device, workers
        self._data = GivenViews(images_NCHW, mean, std)
        self._val, self._normalise = val, transforms.Normalize(mean, std)
        self._temperature, self._lr = temperature, lr
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.01)

    def run(self, epochs: int) -> tuple[float, float]:
        """Mean loss of the last epoch, and top-1 in percent."""
        total = 0.0
        for epoch in range(epochs):
            self.network.train()
            for group in self.optimiser.param_groups:
                group["lr"] = self._lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            files = sorted((self._folder / f"epoch_{epoch}").iterdir(), key=lambda path: int(path.stem[6:]))
            labels = [torch.load(path, weights_only=False) for path in files]
            self._data.boxes = [(0, 0, 1, 1)] * len(self._data)
            self._data.flips = [False] * len(self._data)
            for index, boxes, flips, *_ in labels:
                for image, box, flip in zip(index, boxes.tolist(), flips.tolist(), strict=True):
                    self._data.boxes[image], self._data.flips[image] = tuple(box), flip
            loader = DataLoader(self._data, batch_sampler=[one[0] for one in labels], num_workers=self._workers)
            total = 0.0
            for views, (_, _, _, partner, _, box, logits) in zip(loader, labels, strict=True):
                images = mixed(views.to(self._device), partner.to(self._device), box)
                loss = distillation_loss(self.network(images), logits.to(self._device).float(), self._temperature)
                self.optimiser.zero_grad()
                loss.backward()
                self.optimiser.step()
                total += loss.item() * len(views) / len(self._data)
        return total, top1(self.network, *self._val, self._normalise, self._device)
