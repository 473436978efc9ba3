"""A small problem of recovery on the device, and its solution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine import models
from engine.augment import draw_views
from engine.losses import Coefficients, Targets, Terms
from engine.models.instrument import bn_layers, classifier_layer, looking_into
from engine.optimise import optimise
from engine.recipe import Recipe, learning_rates

DEVICE = torch.device("cuda")
CLASSES, IPC, SIZE, ITERATIONS = 4, 3, 32, 12


def teacher(arch: str) -> nn.Module:
    """An untrained network that is asked."""
    network = models.build(arch, CLASSES, SIZE, "standard")
    return network.to(DEVICE, memory_format=torch.channels_last).eval().requires_grad_(False)


def start() -> torch.Tensor:
    """Noise (B, 3, H, W)."""
    return torch.randn(CLASSES * IPC, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def recipe_for(network: nn.Module) -> Recipe:
    """One chunk of all classes, with targets drawn at random."""
    random = torch.Generator().manual_seed(1)
    labels_B = torch.arange(CLASSES).repeat_interleave(IPC)
    share_GB = (labels_B == torch.arange(CLASSES)[:, None]).float() / IPC
    channels = [layer.num_features for _, layer in bn_layers(network)]
    targets = Targets(
        labels_B.to(DEVICE),
        labels_B.to(DEVICE),
        share_GB.to(DEVICE),
        tuple(torch.randn(CLASSES, count, generator=random).to(DEVICE) for count in channels),
        tuple(torch.rand(CLASSES, count, generator=random).to(DEVICE) for count in channels),
        torch.randn(len(labels_B), classifier_layer(network).in_features, generator=random).to(DEVICE),
    )
    views = draw_views(ITERATIONS, SIZE, 0.3, True, 5, 0, "gpu")
    views = views.to(DEVICE)
    bound_C = torch.full((3,), 2.5, device=DEVICE)
    return Recipe(
        targets, Coefficients(1.0, 1.0, 10.0), views, learning_rates(0.1, ITERATIONS), -bound_C, bound_C, (0.5, 0.9),
        channels_last=True,
    )  # fmt: skip


def recovered(images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of all iterations and final images, on the host."""
    rows_RL = torch.zeros(ITERATIONS, Terms.width(recipe.layers), device=DEVICE)
    with looking_into(network, SIZE) as forward:
        final = optimise(images_BCHW, forward, recipe, rows_RL=rows_RL, slower=pytest.fail)
    return rows_RL.cpu(), final.cpu()


def assert_the_same_step(images_BCHW: torch.Tensor, network: nn.Module, plain: Recipe, fast: Recipe) -> None:
    """Two ways to do a step end alike. In fp32 without TF32, where nothing but the order of sums may differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        rows, final = recovered(images_BCHW, network, plain)
        fast_rows, fast_final = recovered(images_BCHW, network, fast)
    torch.testing.assert_close(fast_rows, rows, rtol=1e-3, atol=1e-3)
    assert (fast_final - final).abs().mean() < 1e-2
