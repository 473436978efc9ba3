"""How soft labels lie on disk: whole or the highest few, in float16 or in 8 bits.

Of a label of which the ``top_k`` highest logits are kept, the others are read back as their mean: at the high
temperatures of distillation what they share matters, each for itself hardly. In 8 bits a label's logits are steps
between its lowest and its highest kept one.

Shapes: E epochs of a file, N images, C classes, K logits kept.
"""

from __future__ import annotations

import torch

from engine.config import RelabelConfig

STEPS = 255


def encode(logits_ENC: torch.Tensor, config: RelabelConfig) -> dict[str, torch.Tensor]:
    """Tensors of a file of labels (float16); ``decode`` reads them back."""
    classes = logits_ENC.shape[2]
    if config.keeps_all(classes) and config.bits == 16:
        return {"logits_ENC": logits_ENC}
    found: dict[str, torch.Tensor] = {}
    values_ENK = logits_ENC
    if not config.keeps_all(classes):
        top = logits_ENC.float().topk(config.top_k, dim=2)
        values_ENK = top.values.half()
        rest_EN = (logits_ENC.float().sum(2) - top.values.sum(2)) / (classes - config.top_k)
        found = {"index_ENK": top.indices.to(_index_type(classes)), "rest_EN": rest_EN.half()}
    if config.bits == 16:
        return {**found, "values_ENK": values_ENK}
    low_EN = values_ENK.amin(2)
    span_EN = values_ENK.float().amax(2) - low_EN.float()
    step_EN = (span_EN / STEPS).clamp(min=torch.finfo(torch.float16).tiny).half()
    codes = ((values_ENK.float() - low_EN[:, :, None].float()) / step_EN[:, :, None].float()).round_().clamp_(0, STEPS)
    return {**found, "codes_ENK": codes.to(torch.uint8), "low_EN": low_EN, "step_EN": step_EN}


def decode(stored: dict[str, torch.Tensor], classes: int) -> torch.Tensor:
    """Logits (N, C) float16 of one epoch from its part of each tensor of a file."""
    if "logits_ENC" in stored:
        return stored["logits_ENC"]
    if "codes_ENK" in stored:
        steps_NK = stored["codes_ENK"].float() * stored["step_EN"].float()[:, None]
        values_NK = (steps_NK + stored["low_EN"].float()[:, None]).half()
    else:
        values_NK = stored["values_ENK"]
    if "index_ENK" not in stored:
        return values_NK
    rest_NC = stored["rest_EN"][:, None].expand(-1, classes)
    return rest_NC.scatter(1, stored["index_ENK"].long(), values_NK)


def _index_type(classes: int) -> torch.dtype:
    """The smallest type that numbers the classes."""
    if classes <= 2**8:
        return torch.uint8
    return torch.int16 if classes <= 2**15 else torch.int32
