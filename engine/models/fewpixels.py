"""Convolutions with many weights onto maps of few pixels, as products of matrices, for networks whose weights change.

The last stages of a ResNet see 4×4 or 2×2 pixels of a small image and hold most of the weights. There a CPU's
convolutions, and their gradients above all, take up to four times as long as the product of all windows with all
kernels (``docs/performance.md``). Weights lie in channels_last, so that a kernel is a row, of the gradient too, and
nothing is copied but the windows. A frozen teacher's are exchanged further in recovery (``engine.models.lowering``).

Shapes: N images, F channels, O output channels, (H, W) pixels of the output, R = N H W windows, K = kernel F.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.models.strided import StridedConv2d

#: Pixels of the output up to which, and weights from which on, a product is faster.
FEW_PIXELS, MANY_WEIGHTS = 16, 1 << 19

Pair = tuple[int, int]


class Windows(torch.autograd.Function):
    """conv2d of stride and zero padding; first derivatives only."""

    @staticmethod
    def forward(
        ctx: Any, images_NFHW: torch.Tensor, weight_OFhw: torch.Tensor, stride: Pair, padding: Pair
    ) -> torch.Tensor:
        down, right = padding
        padded = functional.pad(images_NFHW.permute(0, 2, 3, 1), (0, 0, right, right, down, down))
        windows = padded.unfold(1, weight_OFhw.shape[2], stride[0]).unfold(2, weight_OFhw.shape[3], stride[1])
        count, height, width = windows.shape[:3]
        windows_RK = windows.permute(0, 1, 2, 4, 5, 3).reshape(count * height * width, -1)
        ctx.save_for_backward(windows_RK, weight_OFhw)
        ctx.padded, ctx.stride, ctx.padding, ctx.size = padded.shape, stride, padding, (height, width)
        return (windows_RK @ _rows(weight_OFhw).t()).reshape(count, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        windows_RK, weight_OFhw = ctx.saved_tensors
        outputs, inputs, tall, wide = weight_OFhw.shape
        gradient_RO = gradients[0].permute(0, 2, 3, 1).reshape(-1, outputs)
        to_images = to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (gradient_RO.t() @ windows_RK).reshape(outputs, tall, wide, inputs).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            (height, width), (down, right), (count, rows, columns, _) = ctx.size, ctx.padding, ctx.padded
            parts = (gradient_RO @ _rows(weight_OFhw)).reshape(count, height, width, tall, wide, inputs)
            padded = gradient_RO.new_zeros(ctx.padded)
            for y in range(tall):
                for x in range(wide):
                    seen = padded[:, y :: ctx.stride[0], x :: ctx.stride[1]][:, :height, :width]
                    seen += parts[:, :, :, y, x]
            to_images = padded[:, down : rows - down, right : columns - right].permute(0, 3, 1, 2)
        return to_images, to_weight, None, None


def _rows(weight_OFhw: torch.Tensor) -> torch.Tensor:
    """Kernels as the rows of a matrix (O, K); no copy where they lie in channels_last."""
    return weight_OFhw.permute(0, 2, 3, 1).flatten(1)


class FewPixelsConv2d(StridedConv2d):
    """A convolution that is a product wherever its output has few pixels; for the rest that of PyTorch."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.padding, tuple)
        tall, wide = self.kernel_size
        (down, right), (step, across) = self.padding, self.stride
        height = (input.shape[2] + 2 * down - tall) // step + 1
        width = (input.shape[3] + 2 * right - wide) // across + 1
        plain = torch.is_autocast_enabled(input.device.type) or torch.compiler.is_compiling()
        if plain or not 0 < height * width <= FEW_PIXELS:
            return super().forward(input)
        found: torch.Tensor = Windows.apply(input, self.weight, (step, across), (down, right))
        return found if self.bias is None else found + self.bias[:, None, None]


def exchange(network: nn.Module) -> None:
    """Put ``FewPixelsConv2d`` with the same parameters in place of every convolution that gains by it."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv2d and _may_be(layer) and layer.weight.numel() >= MANY_WEIGHTS:
                setattr(parent, name, same(layer))


def _may_be(layer: nn.Conv2d) -> bool:
    whole = layer.groups == 1 and layer.dilation == (1, 1)
    return whole and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def same(layer: nn.Conv2d) -> FewPixelsConv2d:
    """A layer with the very parameters of another."""
    assert isinstance(layer.padding, tuple)
    tall, wide = layer.kernel_size
    (step, across), (down, right) = layer.stride, layer.padding
    other = FewPixelsConv2d(
        layer.in_channels,
        layer.out_channels,
        (tall, wide),
        (step, across),
        (down, right),
        bias=layer.bias is not None,
        device="meta",
    )
    other.weight, other.bias = layer.weight, layer.bias
    return other.train(layer.training)
