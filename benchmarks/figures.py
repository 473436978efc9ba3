"""What every measurement says beside its figures: machine, versions, load, and how values spread."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import psutil

#: Processor seconds that the host of a virtual machine kept from it, when the measurement began.
_STOLEN = getattr(psutil.cpu_times(), "steal", 0.0)
_BEGIN = time.monotonic()


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest of some values."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return {"median": round(middle, digits), "min": round(low, digits), "max": round(high, digits), "n": len(values)}


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


def report(name: str, load_before: float, **found: Any) -> None:
    """Print the last line of a measurement: one JSON object."""
    stolen = getattr(psutil.cpu_times(), "steal", 0.0) - _STOLEN
    cores = os.cpu_count() or 1
    facts = {
        "benchmark": name,
        **found,
        "load_1min": [round(load_before, 2), round(os.getloadavg()[0], 2)],
        "stolen_percent": round(100 * stolen / (time.monotonic() - _BEGIN) / cores, 1),
        "cores": cores,
        "python": platform.python_version(),
        "textual": version("textual"),
    }
    print(json.dumps(facts, ensure_ascii=False))
