"""Training of the teacher as torchvision's recipes do it: a loader that crops each image, fp32, ``.item()`` a step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Cropped(Dataset[tuple[torch.Tensor, int]]):
    """A random crop and flip of each decoded image, normalised."""

    def __init__(
        self, images_NCHW: torch.Tensor, labels_N: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...],
        crop_min: float, flip: bool = True,
    ) -> None:  # fmt: skip
        self._images, self._labels = images_NCHW, labels_N.tolist()
        self._transform = transforms.Compose(
            [
                transforms.ConvertImageDtype(torch.float32),
                transforms.RandomResizedCrop(images_NCHW.shape[-1], scale=(crop_min, 1), antialias=True),
                transforms.RandomHorizontalFlip(0.5 if flip else 0.0),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


def top1(
    network: nn.Module, images_NCHW: torch.Tensor, labels_N: torch.Tensor, normalise: transforms.Normalize,
    device: torch.device,
) -> float:  # fmt: skip
    """Accuracy on decoded images in percent, by batches of 100."""
    network.eval()
    hits = 0
    with torch.no_grad():
        for start in range(0, len(images_NCHW), 100):
            batch = normalise(images_NCHW[start : start + 100].float() / 255).to(device)
            hits += (network(batch).argmax(1).cpu() == labels_N[start : start + 100]).sum().item()
    return 100 * hits / len(images_NCHW)


def train(
    network: nn.Module,
    data: Dataset[tuple[torch.Tensor, int]],
    batch: int,
    epochs: int,
    lr: float,
    folder: Path,
    device: torch.device,
    workers: int,
    val: Callable[[nn.Module], float] | None = None,
) -> float:
    """Train in place with SGD, after each epoch a checkpoint and ``val``; the last epoch's mean loss."""
    optimiser = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    mean_loss = 0.0
    for _ in range(epochs):
        network.train()
        seen, total = 0, 0.0
        for images, labels in DataLoader(
            data, batch, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda"
        ):
            loss = functional.cross_entropy(network(images.to(device)), labels.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(labels)
            seen += len(labels)
        schedule.step()
        torch.save({"model": network.state_dict(), "optimizer": optimiser.state_dict()}, folder / "checkpoint.pth")
        mean_loss = total / seen
        if val is not None:
            val(network)
    return mean_loss
