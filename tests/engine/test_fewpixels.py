"""Convolutions onto a few pixels are those of PyTorch but for rounding, and the network around them does not notice."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from engine import models, presets
from engine.config import override
from engine.models.fewpixels import FEW_PIXELS, MANY_WEIGHTS, FewPixelsConv2d, exchange, same
from engine.models.instrument import traced
from engine.models.placement import on_device

Size = int | tuple[int, int]
#: Kernel, stride, padding, height and width of the input.
CASES = [
    (3, 1, 1, 2, 2),
    (3, 2, 1, 4, 4),
    (3, 2, 1, 3, 4),
    (1, 2, 0, 4, 3),
    (1, 1, 0, 1, 4),
    (3, 1, 1, 4, 4),
    (5, 2, 2, 3, 3),
    ((3, 1), (2, 1), (1, 0), 2, 2),
    (2, 2, 0, 5, 4),  # a row that no window sees
]


def both(kernel: Size, stride: Size, padding: Size, bias: bool = False) -> tuple[nn.Conv2d, nn.Conv2d]:
    """PyTorch's layer and ours with equal weights, in double precision and channels_last."""
    plain = nn.Conv2d(6, 5, kernel, stride, padding, bias=bias).double()
    return plain, same(copy.deepcopy(plain)).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width"), CASES)
def test_values_and_gradients(kernel: Size, stride: Size, padding: Size, height: int, width: int, bias: bool) -> None:
    plain, ours = both(kernel, stride, padding, bias=bias)
    images = torch.randn(3, 6, height, width, dtype=torch.float64)
    seen = [images.clone().requires_grad_(), images.contiguous(memory_format=torch.channels_last).requires_grad_()]
    found = [layer(one) for layer, one in zip((plain, ours), seen, strict=True)]
    assert found[0].shape[2] * found[0].shape[3] <= FEW_PIXELS
    assert "Windows" in str(found[1].grad_fn if not bias else found[1].grad_fn.next_functions)
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    towards = torch.randn_like(found[0])
    for one in found:
        one.backward(towards)
    torch.testing.assert_close(seen[1].grad, seen[0].grad, rtol=1e-12, atol=1e-12)
    for theirs, own in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-12, atol=1e-12)
        assert own.grad is not None
        assert own.grad.stride() == own.stride()  # a fused optimiser goes through both as they lie


def test_larger_maps_and_half_precision_are_pytorch_s() -> None:
    plain, ours = both(3, 1, 1)
    images = torch.randn(2, 6, 8, 8, dtype=torch.float64)
    assert torch.equal(ours(images), plain(images.contiguous(memory_format=torch.channels_last)))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.float()(torch.randn(2, 6, 2, 2)).dtype == torch.bfloat16


def test_a_network_keeps_its_names_its_parameters_and_its_results() -> None:
    settings = override(presets.get("imagenette64-peer"), ["data.path=."])
    network = models.build_student(settings, 10).eval()
    models.initialise(network, 0, "student")
    before = copy.deepcopy(network)
    parameters = dict(network.named_parameters())
    assert on_device(network, torch.device("cpu")) is network
    assert list(network.state_dict()) == list(before.state_dict())
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    exchanged = [layer for layer in network.modules() if isinstance(layer, FewPixelsConv2d)]
    large = [
        layer for layer in before.modules() if isinstance(layer, nn.Conv2d) and layer.weight.numel() >= MANY_WEIGHTS
    ]
    assert len(exchanged) == len(large) == 7  # of the last two stages
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), before(images), rtol=1e-4, atol=1e-5)
    assert traced(network) is not None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1024, 1024, 3, groups=4),
        nn.Conv2d(512, 512, 3, dilation=2),
        nn.Conv2d(512, 512, 3, padding="same"),
        nn.Conv2d(512, 512, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3),  # few weights: the plain one is as fast
    ],
)
def test_other_convolutions_are_left(layer: nn.Conv2d) -> None:
    around = nn.Sequential(layer)
    exchange(around)
    assert around[0] is layer
