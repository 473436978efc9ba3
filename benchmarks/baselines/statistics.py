"""Features and per-class BatchNorm statistics in two passes, each with a loader for every class.

The variance of a class is the size-weighted mean of the variances within its loading batches, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from engine.models.instrument import bn_layers, classifier_layer

Loader = Callable[[int], DataLoader[torch.Tensor]]


class InMemory(Dataset[torch.Tensor]):
    """Decoded images of one class; each is normalised when it is asked for."""

    def __init__(self, images_NCHW: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._images = images_NCHW
        self._transform = transforms.Compose(
            [transforms.ConvertImageDtype(torch.float32), transforms.Normalize(mean, std)]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> torch.Tensor:
        found: torch.Tensor = self._transform(self._images[index])
        return found


class Files(Dataset[torch.Tensor]):
    """Image files of one class; each is read, resized, cut and normalised when it is asked for."""

    def __init__(self, folder: Path, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._paths = sorted(folder.iterdir())
        self._transform = transforms.Compose(
            [
                transforms.Resize(size),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._paths[index]) as file:
            found: torch.Tensor = self._transform(file.convert("RGB"))
        return found


class MomentHook:
    """Mean and biased variance of a BatchNorm layer's input, weighted by batch size over the batches of a class."""

    def __init__(self, layer: nn.Module) -> None:
        self.begin()
        self._layer = layer.register_forward_hook(self._see)

    def begin(self) -> None:
        self.count, self.mean, self.var = 0, torch.zeros(()), torch.zeros(())

    def _see(self, _module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        x = inputs[0]
        images = len(x)
        mean, var = x.mean((0, 2, 3)).cpu(), x.var((0, 2, 3), unbiased=False).cpu()
        share = images / (self.count + images)
        self.mean = self.mean * (1 - share) + mean * share
        self.var = self.var * (1 - share) + var * share
        self.count += images

    def close(self) -> None:
        self._layer.remove()


def survey(
    network: nn.Module, loader: Loader, classes: int, device: torch.device
) -> tuple[list[torch.Tensor], list[list[torch.Tensor]], list[list[torch.Tensor]]]:
    """Features of each class; means and variances of each class and layer."""
    features = class_features(network, loader, classes, device)
    means, variances = class_moments(network, loader, classes, device)
    return features, means, variances


def class_features(network: nn.Module, loader: Loader, classes: int, device: torch.device) -> list[torch.Tensor]:
    """The first pass: features (n, D) of each class."""
    seen: list[torch.Tensor] = []
    handle = classifier_layer(network).register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten(1).cpu())
    )
    found = []
    with torch.no_grad():
        for label in range(classes):
            for images in loader(label):
                network(images.to(device))
            found.append(torch.cat(seen))
            seen.clear()
    handle.remove()
    return found


def class_moments(
    network: nn.Module, loader: Loader, classes: int, device: torch.device
) -> tuple[list[list[torch.Tensor]], list[list[torch.Tensor]]]:
    """The second pass: mean and variance of every layer for each class."""
    hooks = [MomentHook(layer) for _, layer in bn_layers(network)]
    means, variances = [], []
    with torch.no_grad():
        for label in range(classes):
            for hook in hooks:
                hook.begin()
            for images in loader(label):
                network(images.to(device))
            means.append([hook.mean for hook in hooks])
            variances.append([hook.var for hook in hooks])
    for hook in hooks:
        hook.close()
    return means, variances
