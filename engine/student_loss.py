"""What a student is taught by: three distillation losses and the cross-entropy with the images' classes.

Shapes: N images of a step, C classes. Every loss is a mean over images; ``weights_N`` lets each image count by its
weight over the step's mean weight, as the weights of barycenters do.

Sources: ``kd_loss`` is fast knowledge distillation's (SRe2L, WMDD). The mean squared error of logits beside the
cross-entropy with the class is what committees are distilled with (G-VBSM; EDC), softened cross-entropy has the same
gradient as the divergence and another value.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

Kind = Literal["kl", "mse-gt", "soft-ce"]


def kd_loss(
    student_NC: torch.Tensor,
    teacher_NC: torch.Tensor,
    temperature: float,
    weights_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)), mean over images, no T² factor (as FKD has it)."""
    divergence_N = functional.kl_div(
        functional.log_softmax(student_NC / temperature, dim=1),
        functional.log_softmax(teacher_NC / temperature, dim=1),
        reduction="none",
        log_target=True,
    ).sum(1)
    return _mean(divergence_N, weights_N)


def soft_cross_entropy(
    student_NC: torch.Tensor,
    teacher_NC: torch.Tensor,
    temperature: float,
    weights_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """−Σ softmax(teacher / T) · log softmax(student / T), mean over images."""
    target_NC = functional.softmax(teacher_NC / temperature, dim=1)
    entropy_N = -(target_NC * functional.log_softmax(student_NC / temperature, dim=1)).sum(1)
    return _mean(entropy_N, weights_N)


def logit_mse(
    student_NC: torch.Tensor, teacher_NC: torch.Tensor, weights_N: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared difference of the logits, mean over classes and images."""
    return _mean((student_NC - teacher_NC).square().mean(1), weights_N)


def hard_loss(
    student_NC: torch.Tensor,
    labels_N: torch.Tensor,
    partner_labels_N: torch.Tensor,
    lam_N: torch.Tensor,
    weights_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy with the two mixed images' classes in proportion to their shares ``lam_N`` and 1 − ``lam_N``."""
    own = functional.cross_entropy(student_NC, labels_N, reduction="none")
    partner = functional.cross_entropy(student_NC, partner_labels_N, reduction="none")
    return _mean(lam_N * own + (1 - lam_N) * partner, weights_N)


def soft_loss(
    kind: Kind,
    student_NC: torch.Tensor,
    teacher_NC: torch.Tensor,
    temperature: float,
    weights_N: torch.Tensor | None,
) -> torch.Tensor:
    """The part of a distillation loss that the teacher's logits have in it; "mse-gt" adds ``hard_loss`` to it."""
    if kind == "kl":
        return kd_loss(student_NC, teacher_NC, temperature, weights_N)
    if kind == "soft-ce":
        return soft_cross_entropy(student_NC, teacher_NC, temperature, weights_N)
    return logit_mse(student_NC, teacher_NC, weights_N)


def _mean(values_N: torch.Tensor, weights_N: torch.Tensor | None) -> torch.Tensor:
    if weights_N is not None:
        values_N = values_N * (weights_N / weights_N.mean())
    return values_N.mean()
