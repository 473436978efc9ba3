"""What the memory panel shows, from one memory event. Pure; every figure of a GPU may be absent."""

from __future__ import annotations

from dataclasses import dataclass

from engine.events import Memory
from wmdd_tui.theme import size
from wmdd_tui.widgets.gauge import FREE, GLYPHS, PEAK


@dataclass(frozen=True)
class Parts:
    """Shares of one memory in bytes, and lines of text beside them."""

    parts: list[tuple[str, float, int]]
    total: float
    peak: float | None
    text: str
    notes: list[str]

    def legend(self) -> str:
        """The glyph, name and size of each part of the gauge."""
        known = [f"{GLYPHS[index]} {name} {size(value)}" for index, (name, value, _) in enumerate(self.parts)]
        free = max(0.0, self.total - sum(value for _, value, _ in self.parts))
        known.append(f"{FREE} free {size(free)}")
        known += [] if self.peak is None else [f"{PEAK} peak {size(self.peak)}"]
        return "  ".join(known)


def device_parts(memory: Memory) -> Parts | None:
    """Allocated, cached, other processes; the rest is free; None without a GPU's allocator."""
    if memory.allocated is None:
        return None
    allocated, reserved = memory.allocated, max(memory.reserved or 0, memory.allocated)
    total = memory.device_total or max(reserved, memory.peak or 0)
    free = memory.device_free if memory.device_free is not None else max(0, total - reserved)
    parts = [
        ("allocated", float(allocated), 0),
        ("cached", float(reserved - allocated), 1),
        ("other processes", float(max(0, total - free - reserved)), 3),
    ]
    notes = []
    if memory.inactive_split and reserved:
        share = 100 * memory.inactive_split / reserved
        notes.append(f"fragmented: {size(memory.inactive_split)} ({share:.0f} % of what is reserved)")
    if memory.retries:
        notes.append(f"WARNING: {memory.retries} allocator retries: memory is nearly full")
    if memory.ooms:
        notes.append(f"WARNING: out of memory {memory.ooms} times")
    facts = [
        (memory.utilisation, "busy {:.0f} %"),
        (memory.power, "{:.0f} W"),
        (memory.temperature, "{:.0f} °C"),
    ]
    known = [text.format(value) for value, text in facts if value is not None]
    notes += [" · ".join(known)] if known else []
    text = f"GPU: {size(allocated)} allocated, peak {size(memory.peak or allocated)}, of {size(total)}"
    return Parts(parts, float(total), None if memory.peak is None else float(memory.peak), text, notes)


def host_parts(memory: Memory) -> Parts:
    """This run, others, available."""
    total = memory.host_total or memory.rss
    available = min(memory.host_available, total)
    others = max(0, total - available - memory.rss)
    parts = [("this run", float(memory.rss), 0), ("others", float(others), 3)]
    text = f"Host: {size(memory.rss)} resident (RSS), {size(available)} available of {size(total)}"
    return Parts(parts, float(total), None, text, [f"CPU {memory.cpu_percent:.0f} % of one core"])
