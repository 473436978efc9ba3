"""What this machine can do at most: operations and bytes a second."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.floor import peaks
from benchmarks.harness.options import Options


def measure(options: Options) -> dict[str, Any]:
    """The peaks."""
    return {"peaks": peaks(options.device)}
