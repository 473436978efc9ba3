"""Where a network computes, and how its weights lie in memory there."""

from __future__ import annotations

import torch
from torch import nn

from engine.models import fewpixels, strided


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network itself, on a device, its convolutions' weights in channels_last; on a CPU, large ones onto few pixels
    as products.

    Activations follow the weights. So a ConvNet trains 1.6 times as fast on a CPU, a ResNet as fast as before
    (``benchmarks/LOG.md``); GPUs compute half precision so. Every stage takes the same layout, for sums are rounded
    by it: a teacher gives the same labels whether it was trained just now or loaded.
    """
    if device.type == "cpu":
        fewpixels.exchange(network)
        strided.guard(network)
    return network.to(device).to(memory_format=torch.channels_last)
