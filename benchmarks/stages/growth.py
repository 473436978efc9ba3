"""How the product's cost grows: each stage at three sizes along each axis that it has, everything else held."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import spread
from benchmarks.harness.options import Options
from benchmarks.harness.timing import repeated
from benchmarks.stages import barycenter, recover, relabel, squeeze, statistics, train
from engine.models import build
from engine.models.instrument import bn_layers

MODULES: dict[str, ModuleType] = {
    "squeeze": squeeze,
    "statistics": statistics,
    "barycenter": barycenter,
    "recover": recover,
    "relabel": relabel,
    "train": train,
}
DEPTHS = ("resnet18", "resnet34", "resnet50")
RESOLUTIONS = (32, 48, 64)
#: The middle size of each stage, kept small, and the axes on which its cost depends. What trains is a ConvNet, for the
#: files of a ResNet take as long as so few images; by depth it is fewer images of ResNets, files included.
MIDDLES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "squeeze": ({"arch": "convnet3", "classes": 4, "images": 100, "batch": 50}, ("images", "resolution", "layers")),
    "statistics": ({"classes": 4, "images": 12}, ("images", "classes", "resolution", "layers")),
    "barycenter": ({"classes": 10, "images": 200, "ipc": 10, "dims": 128}, ("images", "classes", "ipc")),
    "recover": ({"classes": 2, "images": 10, "ipc": 4, "iterations": 2}, ("classes", "ipc", "resolution", "layers")),
    "relabel": ({"classes": 4, "ipc": 8}, ("ipc", "resolution", "layers")),
    "train": ({"arch": "convnet3", "classes": 10, "ipc": 20, "batch": 50}, ("ipc", "resolution", "layers")),
}
FEWER: dict[str, dict[str, Any]] = {
    "squeeze": {"images": 6, "batch": 12},
    "train": {"classes": 4, "ipc": 4, "batch": 16},
}


def sized(base: Options, stage: str, axis: str) -> list[tuple[float, Options]]:
    """Three sizes along an axis: half, once and twice the middle one; three resolutions; three depths."""
    plain = replace(
        base, stage=stage, arch="resnet18", resolution=RESOLUTIONS[0], images=10, ipc=1, batch=100, iterations=1
    )
    plain = replace(plain, **MIDDLES[stage][0])
    if axis == "resolution":
        return [(size, replace(plain, resolution=size)) for size in RESOLUTIONS]
    if axis == "layers":
        return [(_layers(arch), replace(plain, arch=arch, **FEWER.get(stage, {}))) for arch in DEPTHS]
    own = getattr(plain, axis)
    return [(size, replace(plain, **{axis: size})) for size in (own // 2, own, 2 * own)]


def _layers(arch: str) -> int:
    return len(bn_layers(build(arch, 10, 32)))


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The power of the size that the cost grows with, between the first and the last."""
    return math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])


def measure(options: Options) -> dict[str, Any]:
    """Seconds of a repetition at every size; ``--only`` limits it to some stages."""
    found: dict[str, Any] = {}
    for stage, (_, axes) in MIDDLES.items():
        if options.only and stage not in options.only:
            continue
        found[stage] = {axis: _along(options, stage, axis, MODULES[stage].repetition) for axis in axes}
    if not options.json_only:
        Console().print(_table(found))
    return {"growth": found}


def _along(
    options: Options, stage: str, axis: str, repetition: Callable[[Options], tuple[Callable[[], object], float]]
) -> dict[str, Any]:
    rows = []
    for size, one in sized(options, stage, axis):
        work, units = repetition(one)
        rows.append({"size": size, "units": units, **spread(repeated(work, options.repeats, options.device), 5)})
    power = exponent([row["size"] for row in rows], [row["median"] for row in rows])
    return {"rows": rows, "exponent": round(power, 3)}


def _table(found: dict[str, Any]) -> Table:
    shown = Table(title="seconds of one repetition (median)", title_justify="left")
    for column in ("stage", "axis", "sizes", "seconds", "grows with power"):
        shown.add_column(column)
    for stage, axes in found.items():
        for axis, one in axes.items():
            sizes = ", ".join(f"{row['size']:g}" for row in one["rows"])
            seconds = ", ".join(f"{row['median']:.3g}" for row in one["rows"])
            shown.add_row(stage, axis, sizes, seconds, f"{one['exponent']:.2f}")
    return shown
