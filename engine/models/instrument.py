"""Looking into a teacher: the inputs of its BatchNorm layers and its pooled feature, in one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def bn_layers(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    """Names and BatchNorm layers, in module order."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


def classifier_layer(network: nn.Module) -> nn.Linear:
    """The last Linear layer, whose input is the feature. Raises ValueError where there is none."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("the network has no Linear layer that could be its classifier")
    return layers[-1]


class Probe:
    """Calls a network and returns (logits (N, C), features (N, D), BN inputs (N, F, H, W) in ``bn_layers`` order)."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._inputs: dict[int, torch.Tensor] = {}
        self._feature: torch.Tensor | None = None
        self._layers = [layer for _, layer in bn_layers(network)]
        self._handles = [layer.register_forward_pre_hook(self._keep_input) for layer in self._layers]
        self._handles.append(classifier_layer(network).register_forward_pre_hook(self._keep_feature))

    def _keep_input(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._inputs[id(module)] = arguments[0]

    def _keep_feature(self, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._feature = arguments[0].flatten(1)

    def __call__(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        try:
            logits = self.network(images_NCHW)
            if self._feature is None:
                raise RuntimeError("the network did not call its classifier layer")
            return logits, self._feature, [self._inputs[id(layer)] for layer in self._layers]
        finally:  # a pass that ran out of memory must not keep half of the activations
            self._inputs.clear()
            self._feature = None

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
