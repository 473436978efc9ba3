"""Timing two ways of doing the same work: alternating, warmed up, CUDA events on a GPU, the wall clock on a CPU."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.figures import spread


@dataclass
class Timings:
    """Seconds of every repetition of both sides, in the order they were taken, and of what came before them."""

    baseline: list[float] = field(default_factory=list)
    product: list[float] = field(default_factory=list)
    warm_up: dict[str, float] = field(default_factory=dict)

    def figures(self, units: float) -> dict[str, object]:
        """Seconds with spread, units a second, and the ratio: of the medians, and its range over neighbours."""
        ratios = [slow / fast for slow, fast in zip(self.baseline, self.product, strict=True)]
        sides = {"baseline": spread(self.baseline, 6), "product": spread(self.product, 6)}
        return {
            "seconds": sides,
            "rate": {name: round(units / one["median"], 3) for name, one in sides.items()},
            "ratio": round(sides["baseline"]["median"] / sides["product"]["median"], 3),
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
            "warm_up_seconds": {name: round(seconds, 3) for name, seconds in self.warm_up.items()},
        }


class Stopwatch:
    """Seconds between two moments on a device. Starting and stopping wait for what was submitted before."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._begin: float | torch.cuda.Event = 0.0

    def start(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            self._begin = torch.cuda.Event(enable_timing=True)
            self._begin.record()
        else:
            self._begin = time.perf_counter()

    def stop(self) -> float:
        if isinstance(self._begin, float):
            return time.perf_counter() - self._begin
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        end.synchronize()
        return self._begin.elapsed_time(end) / 1000


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of one repetition; garbage is collected before it, and not within."""
    watch = Stopwatch(device)
    gc.collect()
    gc.disable()
    try:
        watch.start()
        work()
        return watch.stop()
    finally:
        gc.enable()


def alternate(
    baseline: Callable[[], object], product: Callable[[], object], repeats: int, device: torch.device
) -> Timings:
    """One repetition of each to warm up, then by turns."""
    found = Timings()
    found.warm_up = {"baseline": timed(baseline, device), "product": timed(product, device)}
    for _ in range(repeats):
        found.baseline.append(timed(baseline, device))
        found.product.append(timed(product, device))
    return found


def repeated(work: Callable[[], object], repeats: int, device: torch.device) -> list[float]:
    """Seconds of each repetition after one to warm up."""
    timed(work, device)
    return [timed(work, device) for _ in range(repeats)]


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that torch's allocator held at once during some work, above what it held before.

    On a GPU from the allocator's own counter, on a CPU from the profiler's record of every allocation: exact, and
    free of what numpy and libraries take. A repetition of its own, for recording takes time.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profile:
        work()
    held, peak = 0, 0
    results = profile.profiler.kineto_results if profile.profiler else None
    records = [one for one in results.events() if one.name() == "[memory]"] if results else []
    for one in sorted(records, key=lambda record: record.start_ns()):
        held += one.nbytes()
        peak = max(peak, held)
    return peak


def busiest(work: Callable[[], object], device: torch.device, rows: int = 12) -> list[dict[str, object]]:
    """The operations that take the most of some work's time: name, share of it, seconds, calls."""
    cuda = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    work()
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        work()
        if cuda:
            torch.cuda.synchronize()

    def own(event: torch.autograd.profiler_util.FunctionEventAvg) -> float:
        return float(event.self_device_time_total if cuda else event.self_cpu_time_total)

    found = sorted(profile.key_averages(), key=own, reverse=True)
    total = sum(own(event) for event in found) or 1.0
    return [
        {
            "operation": event.key[:80],
            "share": round(own(event) / total, 4),
            "seconds": round(own(event) / 1e6, 5),
            "calls": event.count,
        }
        for event in found[:rows]
        if own(event) > 0
    ]
