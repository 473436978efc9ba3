"""Recovery losses: feature, per-class or global BatchNorm, cross-entropy and image priors.

Every chunk-wide term is a function of per-image quantities (first and second moment of each BatchNorm input,
features, cross-entropy) that are linear to collect. So a chunk can be computed in micro-batches **exactly**: one
pass without gradients takes the moments, the derivative of the loss to them is fixed, and a second pass
back-propagates each micro-batch against it (`surrogate`).

Sources: equations of Liu et al. (ICCV 2025) for ``semantics = "paper"``; the behaviour of the authors' code
(un-squared norms, means over classes) for ``"reference"``. Shapes: B images of a chunk, G groups (the classes of
a chunk, or one group of everything), F channels, D feature size, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional


class _ShiftedMoments(torch.autograd.Function):
    """First and second moment of each image and channel about a given shift.

    Written by hand because autograd would keep a shifted copy of every activation: the gradient needs only the
    input itself, which the network holds anyway.
    """

    @staticmethod
    def forward(ctx: Any, inputs_BFHW: torch.Tensor, shift_BF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(inputs_BFHW, shift_BF)
        if inputs_BFHW.is_contiguous(memory_format=torch.channels_last):
            inputs_BPF = inputs_BFHW.permute(0, 2, 3, 1).flatten(1, 2)
            if inputs_BFHW.device.type == "cuda":  # in as few passes over memory as may be: the subtraction converts
                shifted_BPF = inputs_BPF - shift_BF[:, None]
                second_BF = torch.linalg.vector_norm(shifted_BPF, dim=1).square_().div_(shifted_BPF.shape[1])
                return shifted_BPF.mean(1), second_BF
            shifted_BPF = inputs_BPF.float() - shift_BF[:, None]
            return shifted_BPF.mean(1), shifted_BPF.square_().mean(1)
        shifted = (inputs_BFHW.float() - shift_BF[:, :, None, None]).flatten(2)
        second = torch.linalg.vector_norm(shifted, dim=2).square_().div_(shifted.shape[2])
        return shifted.mean(2), second

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        inputs_BFHW, shift_BF = ctx.saved_tensors
        to_first_BF, to_second_BF = gradients
        pixels = inputs_BFHW.shape[2] * inputs_BFHW.shape[3]
        slope_BF = to_second_BF * (2 / pixels)
        offset_BF = to_first_BF / pixels - slope_BF * shift_BF
        gradient = torch.addcmul(
            offset_BF[:, :, None, None].to(inputs_BFHW.dtype),
            inputs_BFHW,
            slope_BF[:, :, None, None].to(inputs_BFHW.dtype),
        )
        return gradient, None


def image_moments(inputs_BFHW: torch.Tensor, shift_BF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of (x - shift) and of (x - shift)² over height and width, each (B, F), in float32 or better."""
    if inputs_BFHW.dtype == torch.float64:
        shifted = inputs_BFHW - shift_BF[:, :, None, None]
        return shifted.mean((2, 3)), shifted.square().mean((2, 3))
    first, second = _ShiftedMoments.apply(inputs_BFHW, shift_BF)
    return first, second


@dataclass(frozen=True)
class Targets:
    """What a chunk is matched to, on the device.

    ``mean_GF``/``var_GF``: one tensor a layer. ``group_B``: the group of each image. ``share_GB``: weight of each
    image within its group (rows sum to 1). ``features_BD``: barycenter of each image, or None for no feature term.

    Derived: ``shift_BF``, what each image's moments are taken about (the mean of its group); ``vars_GS``, all layers'
    variances side by side (S channels of all layers), and ``layer_SL``, a one in the column of each channel's layer.
    """

    labels_B: torch.Tensor
    group_B: torch.Tensor
    share_GB: torch.Tensor
    mean_GF: tuple[torch.Tensor, ...]
    var_GF: tuple[torch.Tensor, ...]
    features_BD: torch.Tensor | None = None
    shift_BF: tuple[torch.Tensor, ...] = field(init=False)
    vars_GS: torch.Tensor = field(init=False)
    layer_SL: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        none = self.share_GB.new_zeros(len(self.share_GB), 0)
        ones = [one.new_ones(one.shape[1], 1) for one in self.var_GF]
        object.__setattr__(self, "shift_BF", tuple(mean_GF[self.group_B] for mean_GF in self.mean_GF))
        object.__setattr__(self, "vars_GS", torch.cat([none, *self.var_GF], dim=1))
        object.__setattr__(self, "layer_SL", torch.block_diag(*ones) if ones else none.new_zeros(0, 0))


@dataclass(frozen=True)
class Coefficients:
    """Coefficients and semantics of the total; see ``RecoverConfig`` for their meaning."""

    ce: float
    feature: float
    bn: float
    first_bn_multiplier: float = 1.0
    semantics: str = "reference"


@dataclass(frozen=True)
class Collected:
    """Per-image quantities of a chunk or a micro-batch: moments a layer (B, F), features (B, D), CE (B,)."""

    first_BF: tuple[torch.Tensor, ...]
    second_BF: tuple[torch.Tensor, ...]
    features_BD: torch.Tensor
    ce_B: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        return [*self.first_BF, *self.second_BF, self.features_BD, self.ce_B]


@dataclass(frozen=True)
class Terms:
    """Scalars of a chunk; ``bn_L`` is the term of each layer before the multiplier of the first."""

    total: torch.Tensor
    ce: torch.Tensor
    feature: torch.Tensor
    bn: torch.Tensor
    bn_L: torch.Tensor

    @staticmethod
    def width(layers: int) -> int:
        """Numbers of a row."""
        return 4 + layers

    @staticmethod
    def of_row(row: torch.Tensor) -> Terms:
        """The inverse of ``row``; views of it."""
        return Terms(row[0], row[1], row[2], row[3], row[4:])

    def row(self) -> torch.Tensor:
        """(4 + L,): total, cross-entropy, feature, BN, BN term of each layer."""
        return torch.cat([torch.stack([self.total, self.ce, self.feature, self.bn]), self.bn_L])

    def detached(self) -> Terms:
        """The same values without their graph."""
        return Terms(*(term.detach() for term in (self.total, self.ce, self.feature, self.bn, self.bn_L)))


def collect(
    logits_BC: torch.Tensor,
    features_BD: torch.Tensor,
    inputs: list[torch.Tensor],
    targets: Targets,
    rows: slice = slice(None),
) -> Collected:
    """Per-image quantities of the images ``rows`` of a chunk from the teacher's forward pass of them."""
    moments = [image_moments(x, shift_BF[rows]) for x, shift_BF in zip(inputs, targets.shift_BF, strict=True)]
    return Collected(
        tuple(first for first, _ in moments),
        tuple(second for _, second in moments),
        features_BD if features_BD.dtype == torch.float64 else features_BD.float(),
        functional.cross_entropy(logits_BC.float(), targets.labels_B[rows], reduction="none"),
    )


def join(parts: list[Collected]) -> Collected:
    """The quantities of a chunk from those of its micro-batches, in order."""
    layers = range(len(parts[0].first_BF))
    return Collected(
        tuple(torch.cat([part.first_BF[layer] for part in parts]) for layer in layers),
        tuple(torch.cat([part.second_BF[layer] for part in parts]) for layer in layers),
        torch.cat([part.features_BD for part in parts]),
        torch.cat([part.ce_B for part in parts]),
    )


def chunk_loss(collected: Collected, targets: Targets, coefficients: Coefficients) -> Terms:
    """All terms of a chunk.

    Reference: feature = ‖F − B‖ over the chunk; BN of a layer = mean_g ‖Δmean‖ + mean_g ‖Δvar‖.
    Paper: the sums of squares of the same. Cross-entropy is the mean over the chunk.
    """
    squared = coefficients.semantics == "paper"
    ce = collected.ce_B.mean()
    bn_L = _bn_terms(collected, targets, squared)
    bn = bn_L.sum()
    if len(bn_L) and coefficients.first_bn_multiplier != 1.0:
        bn = bn + (coefficients.first_bn_multiplier - 1.0) * bn_L[0]
    if targets.features_BD is None:
        feature = torch.zeros_like(ce)
    else:
        difference = collected.features_BD - targets.features_BD
        feature = difference.square().sum() if squared else torch.linalg.vector_norm(difference)
    total = coefficients.ce * ce + coefficients.feature * feature + coefficients.bn * bn
    return Terms(total, ce, feature, bn, bn_L)


def average(parts: Sequence[Terms]) -> Terms:
    """Terms of a committee: the means of its members'; all their layers in a row, each with its share of ``bn``."""
    values_PT = torch.stack([torch.stack([part.total, part.ce, part.feature, part.bn]) for part in parts])
    total, ce, feature, bn = values_PT.mean(0)
    return Terms(total, ce, feature, bn, torch.cat([part.bn_L for part in parts]) / len(parts))


def _bn_terms(collected: Collected, targets: Targets, squared: bool) -> torch.Tensor:
    """BN term of each layer (L,), all at once: a few operations however many layers there are.

    The shift is the target mean, so the first moment *is* the difference of means.
    """
    if not collected.first_BF:
        return collected.ce_B.new_zeros(0)
    mean_difference_GS = targets.share_GB @ torch.cat(collected.first_BF, dim=1)
    second_GS = targets.share_GB @ torch.cat(collected.second_BF, dim=1)
    var_difference_GS = second_GS - mean_difference_GS.square() - targets.vars_GS
    squares_HL = torch.cat([mean_difference_GS, var_difference_GS]).square() @ targets.layer_SL  # both of each group
    if squared:
        return squares_HL.sum(0)
    # A norm of exactly 0 has gradient 0, as ``vector_norm`` has it; the square root alone would give NaN.
    return squares_HL.clamp(min=torch.finfo(squares_HL.dtype).tiny).sqrt().sum(0) / len(targets.share_GB)


def derivatives(collected: Collected, targets: Targets, coefficients: Coefficients) -> tuple[Terms, Collected]:
    """Terms of a chunk and the derivative of the total to every per-image quantity (no network involved)."""
    leaves = [tensor.detach().requires_grad_() for tensor in collected.tensors()]
    layers = len(collected.first_BF)
    with torch.enable_grad():
        point = Collected(tuple(leaves[:layers]), tuple(leaves[layers : 2 * layers]), leaves[-2], leaves[-1])
        terms = chunk_loss(point, targets, coefficients)
        gradients = torch.autograd.grad(terms.total, leaves, materialize_grads=True)
    return terms, Collected(gradients[:layers], gradients[layers : 2 * layers], gradients[-2], gradients[-1])


def surrogate(collected: Collected, gradients: Collected, rows: slice) -> torch.Tensor:
    """A scalar of a micro-batch whose gradient to the images is the chunk's total's."""
    scalar: torch.Tensor = torch.stack(
        [(value * to[rows]).sum() for value, to in zip(collected.tensors(), gradients.tensors(), strict=True)]
    ).sum()
    return scalar


def image_prior(images_BCHW: torch.Tensor, tv: float, l2: float) -> torch.Tensor:
    """Total-variation (L2 norms of the four neighbour differences) and L2 priors of SRe2L's scripts."""
    horizontal = images_BCHW[:, :, :, :-1] - images_BCHW[:, :, :, 1:]
    vertical = images_BCHW[:, :, :-1, :] - images_BCHW[:, :, 1:, :]
    falling = images_BCHW[:, :, :-1, :-1] - images_BCHW[:, :, 1:, 1:]
    rising = images_BCHW[:, :, 1:, :-1] - images_BCHW[:, :, :-1, 1:]
    parts = (horizontal, vertical, falling, rising)
    variation = torch.stack([torch.linalg.vector_norm(part) for part in parts]).sum()
    prior: torch.Tensor = tv * variation + l2 * torch.linalg.vector_norm(images_BCHW)
    return prior
