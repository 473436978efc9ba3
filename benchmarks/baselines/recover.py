"""Recovery as plainly as it can be written: forward hooks, a view drawn each iteration, ``.item()`` each step.

Reference semantics: cross-entropy + ‖features − barycenters‖ over the chunk + λ Σ_layers (mean over classes of
‖Δmean‖ + ‖Δvar‖). One faster choice than a loop over classes: the classes of a chunk are of equal size and in order,
so their statistics are one reduction over a reshaped tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision import transforms

from engine.models.instrument import bn_layers, classifier_layer

View = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Task:
    """A chunk: classes in order, ``per_class`` images each; a layer's targets are (G, F)."""

    labels_B: torch.Tensor
    per_class: int
    mean_GF: tuple[torch.Tensor, ...]
    var_GF: tuple[torch.Tensor, ...]
    features_BD: torch.Tensor
    r_bn: float
    r_wb: float
    lr: float
    betas: tuple[float, float]
    iterations: int
    crop_min: float
    roll: int
    low_C: list[float]
    high_C: list[float]


class ClassHook:
    """Distance of a BatchNorm layer's input statistics from their targets, taken at each forward pass."""

    def __init__(self, layer: nn.Module, mean_GF: torch.Tensor, var_GF: torch.Tensor, per_class: int) -> None:
        self._targets, self._per_class = (mean_GF, var_GF), per_class
        self.distance = torch.zeros(())
        self.handle = layer.register_forward_hook(self._see)

    def _see(self, _module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        x = inputs[0]
        grouped = x.reshape(-1, self._per_class, x.shape[1], x.shape[2] * x.shape[3])
        mean_GF = grouped.mean((1, 3))
        var_GF = grouped.var((1, 3), unbiased=False)
        target_mean, target_var = self._targets
        self.distance = (mean_GF - target_mean).norm(dim=1).mean() + (var_GF - target_var).norm(dim=1).mean()


class FeatureHook:
    """The input of the classifier at each forward pass."""

    def __init__(self, layer: nn.Module) -> None:
        self.features = torch.zeros(())
        self.handle = layer.register_forward_pre_hook(self._see)

    def _see(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.features = inputs[0].flatten(1)


def random_view(size: int, crop_min: float, roll: int) -> View:
    """One crop, flip and roll for the whole batch, its transforms built anew."""
    crop = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(crop_min, 1), antialias=True),
            transforms.RandomHorizontalFlip(),
        ]
    )
    rows, columns = (int(torch.randint(0, roll + 1, ())) for _ in range(2))

    def view(images: torch.Tensor) -> torch.Tensor:
        return torch.roll(crop(images), (rows, columns), (2, 3))

    return view


class Recovery:
    """Images under optimisation, with their hooks; ``run(n)`` does the next n iterations."""

    def __init__(self, images_BCHW: torch.Tensor, network: nn.Module, task: Task) -> None:
        self._network, self._task = network, task
        self.images = images_BCHW.detach().clone().requires_grad_()
        layers = [layer for _, layer in bn_layers(network)]
        self._hooks = [
            ClassHook(layer, mean, var, task.per_class)
            for layer, mean, var in zip(layers, task.mean_GF, task.var_GF, strict=True)
        ]
        self._feature = FeatureHook(classifier_layer(network))
        self._optimiser = torch.optim.Adam([self.images], lr=task.lr, betas=task.betas, eps=1e-8)
        self._done = 0

    def loss(self, view: View) -> torch.Tensor:
        """The chunk's total under a view."""
        task = self._task
        logits = self._network(view(self.images))
        ce = functional.cross_entropy(logits, task.labels_B)
        feature = (self._feature.features - task.features_BD).norm()
        bn = torch.stack([hook.distance for hook in self._hooks]).sum()
        total: torch.Tensor = task.r_wb * ce + feature + task.r_bn * bn
        return total

    def run(self, iterations: int) -> float:
        """The next iterations; the last loss."""
        task, last = self._task, 0.0
        size = self.images.shape[-1]
        for _ in range(iterations):
            for group in self._optimiser.param_groups:
                group["lr"] = task.lr * 0.5 * (1 + math.cos(math.pi * self._done / task.iterations))
            self._optimiser.zero_grad()
            loss = self.loss(random_view(size, task.crop_min, task.roll))
            loss.backward()
            self._optimiser.step()
            for channel, (low, high) in enumerate(zip(task.low_C, task.high_C, strict=True)):
                self.images.data[:, channel].clamp_(low, high)
            last = loss.item()
            self._done += 1
        return last

    def close(self) -> None:
        """Remove the hooks."""
        for hook in (*self._hooks, self._feature):
            hook.handle.remove()
