"""The exponential mean of a network's weights over the steps of its training, by PyTorch's own ``AveragedModel``."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

PREFIX = "averaged/"


def average_of(network: nn.Module, decay: float) -> AveragedModel | None:
    """The mean that begins with the network as it is, buffers included; None for a decay of 0."""
    if not decay:
        return None
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def state_of(averaged: AveragedModel | None) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps of it."""
    return {} if averaged is None else {f"{PREFIX}{name}": value for name, value in averaged.state_dict().items()}


def restore_average(averaged: AveragedModel | None, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of ``state_of``."""
    if averaged is not None:
        own = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        averaged.load_state_dict(own)
