"""Strided convolutions in bf16 on a CPU: every gradient is computed, also where maps are smaller than the stride."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.models.placement import on_device

CPU = torch.device("cpu")


def spoil_memory() -> None:
    """Leave NaN in what tensors give back, so that what is not computed shows."""
    sizes = [4**power for power in range(2, 10)] * 6
    spoilt = [
        torch.full((size,), float("nan"), dtype=dtype) for size in sizes for dtype in (torch.float, torch.bfloat16)
    ]
    del spoilt


@pytest.mark.parametrize("outputs", [24, 1024])  # from so many weights on, products take the place of convolutions
@pytest.mark.parametrize("groups", [1, 2, 24])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 2, 1, 1), (5, 2, 2, 1), (7, 2, 3, 1), (2, 2, 1, 1), (5, 3, 2, 2), (5, 4, 2, 3), (3, 2, 1, 2), (3, 2, 1, 4)],
)
def test_gradients_are_those_of_single_precision(
    kernel: int, stride: int, padding: int, size: int, groups: int, outputs: int
) -> None:
    inputs = 24 if groups == 24 or outputs == 24 else 512
    outputs = outputs // 24 * 24 if groups == 24 else outputs
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)
    network = on_device(nn.Sequential(layer), CPU)
    images = torch.randn(4, inputs, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = network(images)
    towards = torch.randn_like(expected)
    leaves = (images, *network.parameters())
    exact = torch.autograd.grad(expected, leaves, towards)
    for _ in range(3):
        spoil_memory()
        with torch.autocast("cpu", torch.bfloat16):
            found = network(images)
        spoil_memory()
        gradients = torch.autograd.grad(found, leaves, towards.to(found.dtype))
        for ours, theirs in zip((found, *gradients), (expected, *exact), strict=True):
            assert float((ours - theirs).detach().norm()) < 0.02 * float(theirs.detach().norm())
