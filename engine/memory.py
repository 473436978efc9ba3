"""Work cut to the device's memory: a forward pass that does not fit is done in halves.

Only where the images of a batch do not influence each other (a teacher in eval mode, sums over images), so that the
result stays the same but for rounding. What trains on a batch is never cut; the size that would fit is found instead.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import partial

import torch
from torch import nn

from engine.errors import OutOfMemory

#: Share of the free memory of a GPU that may be filled on purpose: others use it too, and it is cut in blocks.
USABLE = 0.8


def in_parts(
    stage: str,
    rows: slice,
    work: Callable[[slice], None],
    fitting: MutableMapping[str, int],
    warn: Callable[[str], None],
) -> None:
    """Do ``work`` on consecutive slices of ``rows``, halving them whenever the device runs out of memory.

    ``fitting[stage]`` remembers the largest slice that fitted. ``work`` must change nothing when it raises
    OutOfMemoryError. Raises OutOfMemory when not even one image fits.
    """
    start = rows.start
    while start < rows.stop:
        stop = min(rows.stop, start + fitting.get(stage, rows.stop - rows.start))
        if fits(partial(work, slice(start, stop))):
            start = stop
            continue
        if stop - start == 1:
            raise OutOfMemory(f"not even one image of {stage} fits the device's memory", "use a device with more")
        fitting[stage] = (stop - start + 1) // 2
        warn(f"{stage}: {stop - start} images do not fit the device's memory; going on with {fitting[stage]} at a time")


def fits(work: Callable[[], object]) -> bool:
    """Do some work. False where the device ran out of memory; what the attempt held is set free by then."""
    try:
        work()
        return True
    except torch.OutOfMemoryError:
        pass
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return False


def reserved_bytes(device: torch.device, only_used: bool = False) -> int:
    """Memory of a GPU that this process holds, ``only_used`` without what stages before have left it to use again;
    0 on a CPU, where nothing is held between steps.
    """
    if device.type != "cuda":
        return 0
    if only_used:
        torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(device)


def times_that_fit(taken: int, device: torch.device) -> int:
    """How many times so many bytes fit what a GPU has free, a part of which is left alone."""
    free, _total = torch.cuda.mem_get_info(device)
    return int(USABLE * free / max(taken, 1))


def forward_batch_that_fits(network: nn.Module, batch_size: int, resolution: int, device: torch.device) -> int:
    """The largest of the halves of a batch size that a forward pass can take; 0 where none can."""
    size = batch_size // 2
    while size >= 1:
        if fits(partial(_forward, network, size, resolution, device)):
            return size
        size //= 2
    return 0


def _forward(network: nn.Module, size: int, resolution: int, device: torch.device) -> None:
    with torch.no_grad():
        network(torch.zeros(size, 3, resolution, resolution, device=device))


def training_batch_that_fits(network: nn.Module, batch_size: int, resolution: int, device: torch.device) -> int:
    """The largest of the halves of a batch size with which a step of training fits; 0 where none does.

    The network's BatchNorm buffers are disturbed by it.
    """
    size = batch_size // 2
    while size >= 2:
        if fits(partial(_step, network, size, resolution, device)):
            return size
        size //= 2
    return 0


def _step(network: nn.Module, size: int, resolution: int, device: torch.device) -> None:
    network(torch.zeros(size, 3, resolution, resolution, device=device)).sum().backward()


def training_failure(
    option: str, network: nn.Module, batch_size: int, resolution: int, device: torch.device, parts: int = 0
) -> OutOfMemory:
    """What to say when a step of training ran out of memory: its batch is part of the result, so it is never cut.

    ``parts``: in how many its gradient is gathered already; 0 for training that does not divide a step.
    """
    fitting = training_batch_that_fits(network, batch_size // max(1, parts), resolution, device)
    remedy = f"set {option} = {fitting}, which fits; the result will be another" if fitting else "use another device"
    divisors = [count for count in range(parts + 1, batch_size // 2 + 1) if batch_size % count == 0]
    enough = next((count for count in divisors if batch_size // count <= fitting), 0)
    if parts and enough:
        remedy += f"; or train.accumulate = {enough}, which keeps the step and divides what BatchNorm sees"
    return OutOfMemory(
        f"a step of {batch_size} images at {resolution} px does not fit the device's memory ({option})", remedy
    )
