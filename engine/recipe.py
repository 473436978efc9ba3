"""All that a chunk's optimisation is told: targets, coefficients, views, learning rates, bounds.

Shapes: B images of a chunk, T iterations, C classes, F channels, D features, K = IPC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from engine.augment import Views, draw_views
from engine.chunks import Chunk
from engine.config import RecoverConfig, RunConfig
from engine.data import Dataset
from engine.devices import computes_in_bf16
from engine.losses import Coefficients, Targets
from engine.models.instrument import Forward, bn_layers
from engine.statistics import Statistics


@dataclass(frozen=True)
class Recipe:
    """All that one step needs besides the images; tensors on the device.

    ``views`` holds T (shared) or T × B (per image) views; ``lr_T`` the learning rates; ``low_C``/``high_C`` the
    valid range of each colour channel in normalised space. ``others`` are further teachers with targets of their own,
    whose losses are averaged with the first one's. ``captured``: record the step as a CUDA graph; ``compiled``: compile
    it; ``channels_last``: the layout of the network's images.
    """

    targets: Targets
    coefficients: Coefficients
    views: Views
    lr_T: list[float]
    low_C: torch.Tensor
    high_C: torch.Tensor
    betas: tuple[float, float]
    others: tuple[tuple[Forward, Targets], ...] = ()
    tv: float = 0.0
    l2: float = 0.0
    micro_batch: int = 0
    bf16: bool = False
    captured: bool = False
    compiled: bool = False
    channels_last: bool = False

    @property
    def layers(self) -> int:
        """BatchNorm layers of all teachers."""
        return sum(len(one.mean_GF) for one in (self.targets, *(theirs for _, theirs in self.others)))


def crop_bounds(config: RecoverConfig) -> torch.Tensor:
    """Lower bound of the crop's area at each iteration (T,): constant, or CDA's curriculum from 1 down."""
    if config.curriculum == "none":
        return torch.full((config.iterations,), config.crop_min)
    span = max(1.0, config.milestone * config.iterations)
    share = (torch.arange(config.iterations) / span).clamp(max=1)
    fall = {
        "step": (share >= 1).float(),
        "linear": share,
        "cosine": 0.5 * (1 - torch.cos(math.pi * share)),
    }[config.curriculum]
    return 1 - (1 - config.crop_min) * fall


def learning_rates(peak: float, iterations: int) -> list[float]:
    """Cosine from ``peak`` to 0, without warm-up."""
    return [peak * 0.5 * (1 + math.cos(math.pi * step / iterations)) for step in range(iterations)]


def make_targets(
    chunk: Chunk,
    config: RunConfig,
    network: nn.Module,
    statistics: Statistics | None,
    points_CKD: torch.Tensor | None,
    weights_CK: torch.Tensor | None,
    device: torch.device,
) -> Targets:
    """Targets of a chunk: BN statistics per class or global, weights within classes, barycenters.

    Global statistics are the network's own, and none of the real images are needed for them.
    """
    labels_B, ordinals_B = chunk.labels_B, chunk.ordinals_B
    count = len(labels_B)
    if config.recover.bn == "global":
        group_B = torch.zeros(count, dtype=torch.int64)
        share_GB = torch.full((1, count), 1 / count)
        layers = [layer for _, layer in bn_layers(network)]
        means = [layer.running_mean.detach()[None].float() for layer in layers if layer.running_mean is not None]
        variances = [layer.running_var.detach()[None].float() for layer in layers if layer.running_var is not None]
    elif statistics is None:
        raise ValueError("per-class BatchNorm targets need statistics")
    else:
        present_G, group_B = labels_B.unique(return_inverse=True)
        weight_B = torch.ones(count)
        if weights_CK is not None and config.barycenter.weights == "optimized":
            weight_B = weights_CK[labels_B, ordinals_B].float()
        share_GB = torch.zeros(len(present_G), count)
        share_GB[group_B, torch.arange(count)] = weight_B
        share_GB /= share_GB.sum(1, keepdim=True)
        means = [layer.mean_CF[present_G] for layer in statistics.layers]
        variances = [layer.var_CF[present_G] for layer in statistics.layers]
    features_BD = None
    if config.recover.objective != "sre2l" and config.recover.r_feature > 0 and points_CKD is not None:
        features_BD = points_CKD[labels_B, ordinals_B].float().to(device)
    return Targets(
        labels_B.to(device),
        group_B.to(device),
        share_GB.to(device),
        tuple(mean.to(device) for mean in means),
        tuple(variance.to(device) for variance in variances),
        features_BD,
    )


def make_coefficients(config: RecoverConfig) -> Coefficients:
    """SRe2L's objective is cross-entropy (coefficient 1) plus the BN term; WMDD's has all three."""
    sre2l = config.objective == "sre2l"
    return Coefficients(
        ce=1.0 if sre2l else config.r_wb,
        feature=0.0 if sre2l else config.r_feature,
        bn=config.r_bn,
        first_bn_multiplier=config.first_bn_multiplier,
        semantics=config.loss_semantics,
    )


def make_recipe(
    config: RunConfig,
    chunk: Chunk,
    dataset: Dataset,
    targets: Targets,
    device: torch.device,
    others: tuple[tuple[Forward, Targets], ...] = (),
) -> Recipe:
    """Everything random or scheduled of a chunk, computed ahead."""
    recover = config.recover
    bounds_T = crop_bounds(recover)
    shared = recover.augment == "shared"
    count = recover.iterations * (1 if shared else len(chunk.labels_B))
    if not shared:
        bounds_T = bounds_T.repeat_interleave(len(chunk.labels_B))
    roll = min(recover.roll, dataset.resolution - 1)
    sides = 2 if recover.roll_both else 1
    views = draw_views(
        count, dataset.resolution, bounds_T, recover.flip, sides * roll, config.seed, "recover-views", chunk.index
    )
    if recover.roll_both:
        views = replace(views, rolls_N2=views.rolls_N2 - roll)
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    return Recipe(
        targets=targets,
        coefficients=make_coefficients(recover),
        views=views.to(device),
        lr_T=learning_rates(recover.lr, recover.iterations),
        low_C=((0 - mean) / std).to(device),
        high_C=((1 - mean) / std).to(device),
        betas=(recover.beta1, recover.beta2),
        others=others,
        tv=recover.tv,
        l2=recover.l2,
        micro_batch=recover.micro_batch,
        bf16=computes_in_bf16(config.precision_of("recover"), device.type),
        captured=device.type == "cuda" and recover.compile != "off",
        compiled=recover.compile == "on",
        channels_last=True,
    )
