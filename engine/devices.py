"""Computing devices without torch: which GPUs NVML sees, what is free on them, which one a configuration means, and in
which precision networks are computed there.

CUDA itself is never asked: that would make a context and take memory on the card.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

#: Where Linux tells of the processor, and its names for instructions on bf16: AVX-512's and the matrix unit's.
CPU_FACTS, BF16_INSTRUCTIONS = Path("/proc/cpuinfo"), frozenset({"avx512_bf16", "amx_bf16"})


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine. Memory in bytes, 0 where the driver does not tell."""

    index: int
    uuid: str
    name: str
    free: int = 0
    total: int = 0


def gpus() -> list[Gpu]:
    """All GPUs of this machine by NVML; none where there is no driver."""
    import pynvml  # only a process that asks for devices pays for it

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    found = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            try:
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                free, total = int(memory.free), int(memory.total)
            except pynvml.NVMLError:
                free, total = 0, 0
            uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
            found.append(Gpu(index, _text(uuid), _text(name), free, total))
    except pynvml.NVMLError:
        pass  # a card that fails half-way ends the list, as it ends CUDA's own
    finally:
        pynvml.nvmlShutdown()
    return found


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def visible(found: Sequence[Gpu], mask: str | None) -> list[Gpu]:
    """The GPUs a process sees under ``CUDA_VISIBLE_DEVICES``, in its order; the first wrong entry ends the list."""
    if mask is None:
        return list(found)
    chosen: list[Gpu] = []
    for entry in (part.strip() for part in mask.split(",")):
        matches = [
            gpu
            for gpu in found
            if entry and (str(gpu.index) == entry or (entry.startswith("GPU-") and gpu.uuid.startswith(entry)))
        ]
        if len(matches) != 1 or matches[0] in chosen:
            break
        chosen.append(matches[0])
    return chosen


def resolve(name: str, seen: Sequence[Gpu]) -> str:
    """The device a ``run.device`` means: "cpu" or "cuda:N" with the machine's own number, whatever the mask.

    "auto" is the first visible GPU, else the CPU, as the engine chooses. A GPU that is not seen keeps its number.
    """
    if name == "cpu" or (name == "auto" and not seen):
        return "cpu"
    if not name.startswith(("auto", "cuda")):  # GPU-… or MIG-…
        return next((f"cuda:{gpu.index}" for gpu in seen if gpu.uuid.startswith(name)), name.replace("/", "-"))
    number = int(name.partition(":")[2] or 0)
    return f"cuda:{seen[number].index if number < len(seen) else number}"


def resolve_here(name: str) -> str:
    """``resolve`` with the GPUs this process sees; asks NVML only where a GPU may be meant."""
    return "cpu" if name == "cpu" else resolve(name, visible(gpus(), os.environ.get("CUDA_VISIBLE_DEVICES")))


def computes_in_bf16(precision: str, device_type: str) -> bool:
    """Whether networks are computed in bf16 under a ``run.precision`` on a device of a type, "cpu" or "cuda".

    "auto" takes bf16 on GPUs, and on a processor with instructions for it: others emulate it and become slower.
    """
    if precision != "auto":
        return precision == "bf16"
    return device_type == "cuda" or _multiplies_bf16(CPU_FACTS)


@cache
def _multiplies_bf16(facts: Path) -> bool:
    """Whether the first processor told of has such instructions; not where the system does not tell."""
    try:
        lines = facts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return not BF16_INSTRUCTIONS.isdisjoint(flags.split())
