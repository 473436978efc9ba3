"""ConvNet-D3/D4 with BatchNorm, the field's network for small images."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class ConvNet(nn.Module):
    """``depth`` blocks of 3×3 convolution, BatchNorm, ReLU and 2×2 average pooling; global average pool; classifier."""

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        channels = [3] + [width] * depth
        self.blocks = nn.Sequential(
            *[
                nn.Sequential(
                    nn.Conv2d(before, after, 3, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(inplace=True),
                    nn.AvgPool2d(2),
                )
                for before, after in pairwise(channels)
            ]
        )
        self.fc = nn.Linear(width, classes)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.fc(self.blocks(images_NCHW).mean((2, 3)))
        return logits
