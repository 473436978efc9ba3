"""Baseline and product side by side: times, memory, where the time goes and the floor, as one dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.harness.floor import floor
from benchmarks.harness.options import Options
from benchmarks.harness.timing import Timings, alternate, busiest, peak_bytes

Work = Callable[[], object]


def compared(
    options: Options,
    sides: Mapping[str, Work],
    units: float,
    unit: str,
    timings: Timings | None = None,
    brief: Mapping[str, Work] | None = None,
    brief_units: float = 0.0,
    bf16: bool = False,
) -> dict[str, Any]:
    """Figures of "baseline" and "product". ``units`` of ``unit`` are done by one repetition.

    ``timings`` that were taken already stand; ``brief`` is less work of the same kind, for memory and profiles, the
    product's of ``brief_units``. The operations are counted on the baseline, which is eager. ``bf16`` tells in which
    precision the product's network is.
    """
    found: dict[str, Any] = {"unit": f"{unit}/s", "bf16": bf16}
    brief = brief or sides
    if brief_units:
        peaks = {side: peak_bytes(work, options.device) for side, work in brief.items()}
        found["peak_bytes"] = peaks | {
            "ratio": round(peaks["product"] / max(1, peaks["baseline"]), 3),
            "what": "most bytes torch's allocator held above what was there before",
        }
    timings = timings or alternate(sides["baseline"], sides["product"], options.repeats, options.device)
    found |= timings.figures(units)
    if options.profile:
        found["where_time_goes"] = {side: busiest(work, options.device) for side, work in brief.items()}
        if brief_units:
            found["floor"] = floor(brief["baseline"], options.device, brief_units, bf16)
            found["floor"]["share_reached"] = _share(found, units)
    return found


def of_part(found: dict[str, Any], scale: float, units: float) -> None:
    """The baseline was timed on a part: its seconds, rate and ratio become those of all, ``scale`` times as much."""
    seconds = found["seconds"]["baseline"]
    for name in ("median", "min", "max"):
        seconds[name] = round(seconds[name] * scale, 6)
    found["rate"]["baseline"] = round(units / seconds["median"], 3)
    found["ratio"] = round(found["ratio"] * scale, 3)
    found["ratio_range"] = [round(ratio * scale, 3) for ratio in found["ratio_range"]]


def _share(found: dict[str, Any], units: float) -> float:
    """The floor over what the product took."""
    least = max(found["floor"]["seconds_by_operations"], found["floor"]["seconds_by_bytes"])
    return round(least * units / found["seconds"]["product"]["median"], 4)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    ours, theirs = ours.detach().double().cpu(), theirs.detach().double().cpu()
    return float(f"{float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30)):.3g}")
