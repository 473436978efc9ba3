"""Count multiply-adds, BatchNorm elements, parameters and features of the architectures: the rows of
``wmdd_tui/store/arch_costs.py``. Ends in one JSON line: the largest relative difference from what stands there.

    python benchmarks/arch_costs.py
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import nn

from engine import models
from engine.catalog import ARCHITECTURES
from engine.models.instrument import bn_layers, classifier_layer
from wmdd_tui.store.arch_costs import Cost, cost_of

SIDES = (64, 128)
CLASSES = 10


def count(arch: str, resolution: int, stem: str, width: int = 64) -> Cost:
    """The cost of one image by hooks on a true forward pass."""
    network = models.build(arch, CLASSES, resolution, stem, width).eval()
    found = {"macs": 0, "elements": 0, "largest": 0}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(module, nn.Conv2d):
            taps = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            found["macs"] += output.numel() * taps
        elif isinstance(module, nn.Linear):
            found["macs"] += output.numel() * module.in_features
        elif isinstance(module, nn.BatchNorm2d):
            found["elements"] += output.numel()
            found["largest"] = max(found["largest"], output.numel())

    for module in network.modules():
        module.register_forward_hook(look)
    with torch.no_grad():
        network(torch.zeros(1, 3, resolution, resolution))
    layers = [layer for _, layer in bn_layers(network)]
    return Cost(
        **found,
        parameters=sum(tensor.numel() for tensor in network.parameters()),
        features=classifier_layer(network).in_features,
        channels=sum(layer.num_features for layer in layers),
        layers=len(layers),
    )


def main() -> None:
    worst = 0.0
    for arch in ARCHITECTURES:
        convnet = arch.startswith("convnet")
        for stem in ("standard", "small", "tiny") if arch.startswith("resnet") else ("standard",):
            small, large = (count(arch, side, "auto" if convnet else stem) for side in SIDES)
            area = SIDES[1] ** 2
            per_pixel = (large.macs - small.macs) / (area - SIDES[0] ** 2)
            if not convnet:
                print(
                    f'("{arch}", "{stem}"): Row({per_pixel:.0f}, {large.macs - per_pixel * area:.0f}, '
                    f"{large.elements / area:.1f}, {large.largest / area:.1f}, "
                    f"{large.parameters}, {large.features}, {large.channels}, {large.layers}),",
                    flush=True,
                )
            stored = cost_of(arch, SIDES[1], 64, stem, CLASSES)
            if stored is None:
                raise SystemExit(f"{arch} {stem} is missing in the table")
            worst = max(worst, *(abs(ours / true - 1) for ours, true in zip(stored, large, strict=True)))
    print(json.dumps({"benchmark": "arch_costs", "largest_relative_difference": round(worst, 4)}))


if __name__ == "__main__":
    main()
