"""What a configuration amounts to: images, time, memory and disk by stage, and what is to be warned of.

``estimate`` is pure; ``estimate_here`` looks at this machine first. Torch-free. Checked against measured runs by
``benchmarks/estimates.py``.
"""

from __future__ import annotations

import math
import os
import socket
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import psutil

from engine.catalog import DatasetFacts
from engine.config import RunConfig
from engine.rundir import home, runs_root
from wmdd_tui.quantities import size
from wmdd_tui.store.counts import DataCounts, data_counts, set_counts
from wmdd_tui.store.devices import Device
from wmdd_tui.store.measured import Measured, measured_runs, samples_of
from wmdd_tui.store.reusing import reusable
from wmdd_tui.store.space import Room, room_at
from wmdd_tui.store.speed import ENOUGH_RUNS, Sample, measured_deviation, point_of, predict
from wmdd_tui.store.workload import StageLoad, loads_of

#: Deviation of the logarithm to the half-width of an interval that holds four of five runs.
FOUR_OF_FIVE = 1.28
#: What the process itself takes: PyTorch and its libraries in main memory, CUDA's context on a card.
PROCESS_BYTES, CONTEXT_BYTES = 930 << 20, 600 << 20
#: Deviations of the logarithm of calculated memory: measured on CPU runs, assumed for a card nothing was measured on.
MEMORY_DEVIATION, UNMEASURED_DEVIATION = 0.1, 0.4
#: Share of the free memory that decoded images may take before they are streamed (as the engine has it).
RESIDENT_SHARE = 0.4
NO_MEASUREMENT = "no measurement of this device yet"
#: Of what a stage leaves on disk the part that a reused one does: neither checkpoints nor another copy in the cache.
REUSED_PARTS = {"squeeze": 4, "statistics": 2, "barycenter": 2}
#: What makes a stage's memory smaller.
REMEDIES = {
    "squeeze": "lower squeeze.batch_size or train.eval_batch",
    "statistics": "lower statistics.batch_size",
    "barycenter": "lower data.max_per_class",
    "recover": "set recover.micro_batch: the result stays the same",
    "relabel": "lower relabel.batch_size",
    "train": "lower train.batch_size or train.eval_batch",
}


@dataclass(frozen=True)
class StageEstimate:
    """Seconds, bytes of memory at the peak, bytes left on disk; None where unknown. ``reused``: it is in the cache."""

    stage: str
    seconds: float | None
    memory: int | None
    disk: int | None
    reused: bool = False


@dataclass(frozen=True)
class Estimate:
    """All that is known of a run before it starts. Bytes and seconds; None where unknown, and ``unknown`` says why.

    Four of five runs should lie within a factor of 1 + error. ``runs`` is the number of runs on this device that
    the time was learnt from, ``checked`` whether the error was measured on them (else it is the model's own).
    """

    data: DataCounts | None
    images: int
    chunks: int
    iterations: int
    device: str
    cuda: bool
    stages: tuple[StageEstimate, ...] = ()
    seconds: float | None = None
    seconds_error: float = 0.0
    runs: int = 0
    checked: bool = False
    memory: int | None = None
    memory_error: float = 0.0
    memory_runs: int = 0
    memory_free: int = 0
    memory_total: int = 0
    disk: int | None = None
    disk_free: int = 0
    folder: str = ""
    unknown: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """Where a run would go. ``device`` is None where this machine lacks it; ``key`` as `measured.device_key` has it."""

    device: Device | None
    cuda: bool
    key: str
    cores: int
    room: Room


def estimate_here(
    config: RunConfig, devices: Sequence[Device], facts: DatasetFacts | None = None, counts: DataCounts | None = None
) -> Estimate:
    """The estimate on this machine. Reads finished runs and may count a data set: some moments.

    ``facts`` or ``counts`` of the data set spare counting it. Raises OSError where no disk can be asked for its room.
    """
    machine = machine_for(config.run.device, devices)
    found = measured_runs(runs_root())
    data = counts or data_counts(config.data, facts)
    try:
        return estimate(config, data, machine, found, reusable(config, machine.cuda, found))
    except OverflowError:
        absurd = "numbers of the configuration are beyond all bounds, so nothing can be estimated"
        return Estimate(
            None, 0, 0, 0, config.run.device, machine.cuda, disk_free=machine.room.usable, unknown=(absurd,)
        )


def machine_for(name: str, devices: Sequence[Device]) -> Machine:
    """What ``run.device`` means among the devices of this machine, GPUs first."""
    wanted = {"auto": devices[0].name if devices else "cpu", "cuda": "cuda:0"}.get(name, name)
    device = next((one for one in devices if one.name == wanted), None)
    cuda = wanted.startswith("cuda")
    key = (device.title if device else "") if cuda else f"cpu {socket.gethostname()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(device, cuda, key, cores, room_at(home()))


def estimate(
    config: RunConfig,
    data: DataCounts | None,
    machine: Machine,
    found: Sequence[Measured] = (),
    reused: frozenset[str] = frozenset(),
) -> Estimate:
    """The estimate for a machine, with what was measured in earlier runs; ``reused`` stages come from the cache."""
    unknown = []
    made = set_counts(config, data.classes if data else 0)
    free, total = (machine.device.free, machine.device.total) if machine.device else (0, 0)
    known: dict[str, Any] = {
        "data": data, "images": made.images, "chunks": made.chunks, "iterations": made.iterations,
        "device": machine.device.name if machine.device else config.run.device, "cuda": machine.cuda,
        "memory_free": free, "memory_total": total, "disk_free": machine.room.usable,
        "folder": str(machine.room.folder),
    }  # fmt: skip
    if machine.device is None:
        unknown.append(f"this machine has no device '{config.run.device}'")
    if data is None:
        unknown.append(f"the data set at data.path = '{config.data.path}' cannot be counted")
        return Estimate(**known, unknown=tuple(unknown), warnings=tuple(_warnings(config, machine, None, None, 0, "")))
    resident = is_resident(config, data, free)
    loads = loads_of(config, data, machine.cuda, resident)
    unknown += _unknown_costs(config, loads)
    times = _times(config, loads, machine, found, reused)
    if times.seconds is None and all(load.known for load in loads):
        unknown.append(f"time: {NO_MEASUREMENT}; its first finished run gives one")
    memory = _memory(config, data, loads, machine, found, resident, reused)
    disks = {
        load.stage: load.disk // (REUSED_PARTS[load.stage] if load.stage in reused else 1)
        for load in loads
        if load.known
    }
    disk = sum(disks.values()) if len(disks) == len(loads) else None
    stages = tuple(
        StageEstimate(
            load.stage,
            0.0 if load.stage in reused else times.stages.get(load.stage),
            load.memory if load.known else None,
            disks.get(load.stage),
            load.stage in reused,
        )
        for load in loads
    )
    warnings = _warnings(config, machine, disk, memory.bytes, memory.error, memory.stage)
    return Estimate(
        **known,
        stages=stages,
        seconds=times.seconds,
        seconds_error=times.error,
        runs=times.runs,
        checked=times.checked,
        memory=memory.bytes,
        memory_error=memory.error,
        memory_runs=memory.runs,
        disk=disk,
        unknown=tuple(unknown),
        warnings=tuple(warnings),
    )


def is_resident(config: RunConfig, data: DataCounts, free: int) -> bool:
    """Whether the decoded images will be kept on the device."""
    if config.data.storage != "auto":
        return config.data.storage == "device"
    room = min(psutil.virtual_memory().available, free or 1 << 62)
    return (data.train + data.val) * 3 * config.data.resolution**2 < RESIDENT_SHARE * room


def _unknown_costs(config: RunConfig, loads: Sequence[StageLoad]) -> list[str]:
    lacking = [load.stage for load in loads if not load.known]
    if not lacking:
        return []
    teachers = {config.teacher.arch, *(member.partition("=")[0].strip() for member in config.teacher.committee)}
    names = set().union(*(config.student_archs if stage == "train" else teachers for stage in lacking))
    return [f"time, memory and disk of {', '.join(lacking)}: the costs of {' and '.join(sorted(names))} are not known"]


@dataclass(frozen=True)
class _Times:
    stages: dict[str, float]
    seconds: float | None = None
    error: float = 0.0
    runs: int = 0
    checked: bool = False


def _times(
    config: RunConfig,
    loads: Sequence[StageLoad],
    machine: Machine,
    found: Sequence[Measured],
    reused: frozenset[str],
) -> _Times:
    """Times of what is to be computed. Nothing is said of a GPU before a run on its like has finished a stage."""
    own = [run for run in found if run.device == machine.key]
    samples = samples_of(own, machine.cores)
    if machine.cuda and not samples:
        return _Times({})
    wanted = [load for load in loads if load.known and load.stage not in reused]
    points = [point_of(load, config.run, machine.cuda, machine.cores) for load in wanted]
    prediction = predict(points, samples)
    stages = {load.stage: seconds for load, seconds in zip(wanted, prediction.seconds, strict=True)}
    if not all(load.known for load in loads):
        return _Times(stages)
    measured = _measured_error(samples)
    deviation = max(prediction.deviation, measured or 0.0)
    runs = len({sample.run for sample in samples})
    return _Times(stages, prediction.total, spread(deviation), runs, measured is not None)


@lru_cache(maxsize=8)
def _measured_error(samples: tuple[Sample, ...]) -> float | None:
    """``measured_deviation``, computed once for the same samples."""
    return measured_deviation(samples)


def spread(deviation: float) -> float:
    """The factor, less one, within which four of five values lie, given the deviation of their logarithm."""
    return math.expm1(FOUR_OF_FIVE * deviation)


@dataclass(frozen=True)
class _Memory:
    bytes: int | None
    error: float = 0.0
    runs: int = 0
    stage: str = ""


def _memory(
    config: RunConfig,
    data: DataCounts,
    loads: Sequence[StageLoad],
    machine: Machine,
    found: Sequence[Measured],
    resident: bool,
    reused: frozenset[str],
) -> _Memory:
    """The peak: of resident memory on a CPU, of allocated memory on a GPU, corrected by measured peaks."""
    if not all(load.known for load in loads):
        return _Memory(None)
    largest = max((load for load in loads if load.stage not in reused), key=lambda load: load.memory)
    calculated = calculated_memory(config, data, loads, machine.cuda, resident, reused)
    like = [run for run in found if (run.cuda if machine.cuda else run.device == machine.key)]
    ratios = [ratio for run in like if (ratio := _memory_ratio(run)) is not None]
    shift = sum(ratios) / (len(ratios) + 1)
    deviation = UNMEASURED_DEVIATION if machine.cuda and not ratios else MEMORY_DEVIATION
    if len(ratios) >= ENOUGH_RUNS:
        deviation = max(0.02, statistics.stdev(ratios))
    return _Memory(int(calculated * math.exp(shift)), spread(deviation), len(ratios), largest.stage)


def _memory_ratio(run: Measured) -> float | None:
    """Logarithm of a run's measured over its calculated peak; None where either is not known."""
    loads = loads_of(run.config, run.data, run.cuda, run.resident)
    if not run.peak or not all(load.known for load in loads):
        return None
    return math.log(run.peak / calculated_memory(run.config, run.data, loads, run.cuda, run.resident, run.cached))


def calculated_memory(
    config: RunConfig,
    data: DataCounts,
    loads: Sequence[StageLoad],
    cuda: bool,
    resident: bool,
    reused: frozenset[str],
) -> int:
    """Bytes at the peak: the process (on a CPU), the data set where it is kept, and the largest computed stage."""
    kept = (data.train + data.val) * 3 * config.data.resolution**2 if resident else 0
    stages = max(load.memory for load in loads if load.stage not in reused)
    return (0 if cuda else PROCESS_BYTES) + kept + stages


def _warnings(
    config: RunConfig, machine: Machine, disk: int | None, memory: int | None, error: float, stage: str
) -> list[str]:
    found = []
    room, device = machine.room, machine.device
    if disk is not None and disk > room.usable:
        if room.quota_left is not None and room.quota_left < room.free:
            found.append(
                f"YOUR QUOTA IS TOO SMALL: the run writes about {size(disk)}, your quota leaves "
                f"{size(room.quota_left)} at {room.folder}; set WMDD_HOME to another disk"
            )
        else:
            found.append(
                f"NOT ENOUGH DISK: the run writes about {size(disk)}, {size(room.free)} are free at "
                f"{room.folder}; free some, set WMDD_HOME to another disk, or relabel.storage = 'online'"
            )
    elif disk is not None and room.shared_home:
        found.append(
            f"{room.folder} is your home on a network disk: if it has a quota below {size(disk)}, "
            "set WMDD_HOME to another disk"
        )
    if memory is not None and device is not None and device.total:
        needed = memory + (CONTEXT_BYTES if machine.cuda else 0)
        what = "GPU MEMORY" if machine.cuda else "MEMORY"
        remedy = REMEDIES.get(stage, "take a smaller data set")
        facts = f"{size(device.free)} of {size(device.total)} free on {device.name}"
        if needed > device.free:
            found.append(f"NOT ENOUGH {what}: {stage} needs about {size(needed)}, {facts}; {remedy}")
        elif needed * (1 + error) > device.free:
            found.append(f"{what} MAY BE SHORT: {stage} needs about {size(needed)}, {facts}; {remedy}")
    if not machine.cuda and config.run.threads > machine.cores:
        found.append(f"run.threads = {config.run.threads} on {machine.cores} cores only makes it slower")
    return found
