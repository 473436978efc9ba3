"""The devices a run can be started on, as the form offers them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from engine.devices import Gpu, gpus, visible


@dataclass(frozen=True)
class Device:
    """``name`` is what ``run.device`` takes; ``key`` names its queue. Memory in bytes, 0 where unknown."""

    name: str
    key: str
    title: str
    free: int
    total: int


def offered(seen: list[Gpu], cores: int, free: int, total: int) -> list[Device]:
    """The GPUs a run would see, in its numbering, then the CPU."""
    cards = [Device(f"cuda:{n}", f"cuda:{gpu.index}", gpu.name, gpu.free, gpu.total) for n, gpu in enumerate(seen)]
    return [*cards, Device("cpu", "cpu", f"{cores} core{'s' * (cores != 1)}", free, total)]


def list_devices() -> list[Device]:
    """The devices of this machine. Takes some time where a GPU driver must answer."""
    memory = psutil.virtual_memory()
    seen = visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return offered(seen, cores, memory.available, memory.total)
