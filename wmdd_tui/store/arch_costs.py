"""What one image costs in each known architecture; counted once by ``benchmarks/arch_costs.py``, so no torch is needed.

Multiply-adds and elements are linear in the number of pixels: exact for ConvNets, within a few percent elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

SMALL_RESOLUTION = 64
#: Classes the rows were counted for; the classifier of other numbers is added.
CLASSES = 10


class Cost(NamedTuple):
    """Of a forward pass of one image: multiply-adds, elements that enter BatchNorm layers, those of the largest such
    layer; and of the network: parameters, length of the feature, BatchNorm channels of all layers, and their number."""

    macs: float
    elements: float
    largest: float
    parameters: int
    features: int
    channels: int
    layers: int


class Row(NamedTuple):
    """Multiply-adds, BN elements and largest layer per pixel of the image, multiply-adds that do not depend on it;
    the network's own figures as in ``Cost``."""

    macs: float
    fixed_macs: float
    elements: float
    largest: float
    parameters: int
    features: int
    channels: int
    layers: int


#: By architecture and stem, for ten classes.
ROWS: dict[tuple[str, str], Row] = {
    ("resnet18", "standard"): Row(36144, 5120, 49.5, 16.0, 11181642, 512, 4800, 20),
    ("resnet18", "small"): Row(542400, 5120, 600.0, 64.0, 11173962, 512, 4800, 20),
    ("resnet18", "tiny"): Row(146711, 102635947, 162.9, 17.0, 11173962, 512, 4800, 20),
    ("resnet34", "standard"): Row(73008, 5120, 74.5, 16.0, 21289802, 512, 8512, 36),
    ("resnet34", "small"): Row(1132224, 5120, 1000.0, 64.0, 21282122, 512, 8512, 36),
    ("resnet34", "tiny"): Row(305687, 207329707, 272.1, 17.0, 21282122, 512, 8512, 36),
    ("resnet50", "standard"): Row(81456, 20480, 221.5, 16.0, 23528522, 2048, 26560, 53),
    ("resnet50", "small"): Row(1267392, 20480, 3352.0, 256.0, 23520842, 2048, 26560, 53),
    ("resnet50", "tiny"): Row(341954, 229878528, 910.4, 68.1, 23520842, 2048, 26560, 53),
    ("resnet101", "standard"): Row(155440, 20480, 323.5, 16.0, 42520650, 2048, 52672, 104),
    ("resnet101", "small"): Row(2451136, 20480, 4984.0, 256.0, 42512970, 2048, 52672, 104),
    ("resnet101", "tiny"): Row(662551, 450844075, 1371.0, 68.1, 42512970, 2048, 52672, 104),
    ("vgg11_bn", "standard"): Row(149184, 119578624, 148.0, 64.0, 128812810, 4096, 2752, 8),
    ("vgg16_bn", "standard"): Row(305856, 119578624, 270.0, 64.0, 134309962, 4096, 4224, 13),
    ("mobilenet_v2", "standard"): Row(5969, 12800, 133.1, 24.0, 2236682, 1280, 17056, 52),
    ("mobilenet_v3_small", "standard"): Row(1085, 1058816, 28.2, 4.5, 1528106, 1024, 6056, 34),
    ("efficientnet_b0", "standard"): Row(7651, 640000, 134.3, 24.0, 4020358, 1280, 21008, 49),
    ("densenet121", "standard"): Row(56464, 10240, 312.2, 16.0, 6964106, 1024, 41824, 121),
    ("shufflenet_v2_x1_0", "standard"): Row(2868, 10240, 38.9, 6.0, 1263854, 1024, 8090, 56),
    ("regnet_y_400mf", "standard"): Row(7987, 667216, 77.5, 12.0, 3907554, 440, 13576, 53),
}
DEPTHS = {"convnet3": 3, "convnet4": 4}


def cost_of(arch: str, resolution: int, width: int, stem: str, classes: int) -> Cost | None:
    """The cost of one image; None for an architecture that is not in the table."""
    if arch in DEPTHS:
        return _convnet(DEPTHS[arch], resolution, width, classes)
    if stem == "auto":
        stem = "small" if arch.startswith("resnet") and resolution <= SMALL_RESOLUTION else "standard"
    row = ROWS.get((arch, stem))
    if row is None:
        return None
    pixels = resolution * resolution
    more = classes - CLASSES
    return Cost(
        row.macs * pixels + row.fixed_macs + more * row.features,
        row.elements * pixels,
        row.largest * pixels,
        row.parameters + more * (row.features + 1),
        row.features,
        row.channels,
        row.layers,
    )


def _convnet(depth: int, resolution: int, width: int, classes: int) -> Cost:
    macs = elements = parameters = 0
    before, side = 3, resolution
    for _ in range(depth):
        macs += side * side * before * width * 9
        elements += side * side * width
        parameters += before * width * 9 + 2 * width
        before, side = width, side // 2
    return Cost(
        macs + classes * width,
        elements,
        resolution * resolution * width,
        parameters + classes * width + classes,
        width,
        depth * width,
        depth,
    )
