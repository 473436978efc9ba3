"""Seconds and bytes as people read them."""

from __future__ import annotations

#: Greater magnitudes count as infinite: sums and spans of them would overflow.
LARGEST = 1e100


def duration(seconds: float | None) -> str:
    """Seconds as people read them: 42s, 3m05, 2h10, 3d4h; empty when unknown."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return ""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
