"""Strided convolutions of a CPU in bf16, on maps smaller than the stride.

There PyTorch's gradient of the weights (2.15, oneDNN) holds whatever lay in memory, NaN now and then, whatever the
kernel, padding and groups; in single precision, and on larger maps, it is right. Such maps are what deep networks are
left with of images of some 16 pixels.
"""

from __future__ import annotations

import torch
from torch import nn


class StridedConv2d(nn.Conv2d):
    """PyTorch's layer, under autocast in single precision where the map is smaller than the stride."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        device = input.device.type
        small = input.shape[2] < self.stride[0] or input.shape[3] < self.stride[1]
        if not (small and torch.is_autocast_enabled(device)):
            return super().forward(input)
        with torch.autocast(device, enabled=False):
            return super().forward(input.float())


def guard(network: nn.Module) -> None:
    """Make every strided convolution of a network such a one, which has no state of its own."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and max(layer.stride) > 1:
            layer.__class__ = StridedConv2d
