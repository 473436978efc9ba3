"""Telemetry: losses buffered on the device, memory of device and host, heartbeats.

Losses never cost a synchronisation per step: the step itself writes a row to a device-side buffer, which is copied
out every 250 ms (or when full). The heartbeat thread reads only the host and the allocator's counters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import torch

from engine import events
from engine.errors import NonFiniteLoss

FLUSH_SECONDS = 0.25
ROWS = 1024
#: Steps until the first flush, which shows how long they take.
FIRST_ROWS = 8
TERMS = ("total", "ce", "feature", "bn")


class LossBuffer:
    """Rows of (total, ce, feature, bn, BN term of each layer) of consecutive iterations of one chunk.

    ``rows_RL`` is filled on the device, iteration i in row i modulo R; nothing of it is read but in ``flush``. A GPU
    does the steps later than they are launched, so after each flush at most as many are let through as it does in the
    time between two.
    """

    def __init__(self, emit: Callable[[events.Event], None], chunk: int, rows_RL: torch.Tensor) -> None:
        self._emit = emit
        self._chunk = chunk
        self._rows = rows_RL
        self._first = 0
        self._count = 0
        self._limit = min(FIRST_ROWS, len(rows_RL))
        self._flushed = time.monotonic()

    def add(self, iteration: int) -> None:
        """An iteration has its row. Raises NonFiniteLoss at the flush that shows one."""
        if self._count == 0:
            self._first = iteration
        self._count += 1
        if self._count >= self._limit or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Copy out and emit what is recorded (the one CPU–GPU synchronisation of the loop)."""
        if not self._count:
            return
        start, last = self._first % len(self._rows), self._first + self._count
        rows = self._rows[start : start + self._count].tolist()
        rows += self._rows[: self._count - len(rows)].tolist()  # where the ring begins again
        columns = [events.numbers([row[index] for row in rows]) for index in range(len(TERMS))]
        self._emit(
            events.Iters(
                chunk=self._chunk,
                first=self._first,
                total=columns[0],
                ce=columns[1],
                feature=columns[2],
                bn=columns[3],
            )
        )
        self._emit(events.Layers(chunk=self._chunk, iteration=last - 1, values=events.numbers(rows[-1][len(TERMS) :])))
        now = time.monotonic()
        share = FLUSH_SECONDS / max(now - self._flushed, 1e-9)
        self._limit = min(len(self._rows), 1 + int(self._count * share))
        self._count = 0
        self._flushed = now
        for index, row in enumerate(rows):
            if not all(abs(value) < float("inf") for value in row):
                raise NonFiniteLoss(
                    f"the loss became non-finite in chunk {self._chunk}, iteration {last - len(rows) + index}: "
                    + ", ".join(f"{name} {value:.4g}" for name, value in zip(TERMS, row, strict=False)),
                    "lower recover.lr or recover.r_bn; the last checkpoint before it is kept",
                )


class Nvml:
    """Device facts through NVML, matched by UUID; every figure is optional."""

    def __init__(self, device: torch.device) -> None:
        self._handle: Any = None
        if device.type != "cuda":
            return
        import pynvml  # only where a GPU is used: initialising it costs time

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(device).uuid)
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}".encode())
        except pynvml.NVMLError:
            self._handle = None

    def _ask(self, question: Callable[[], float]) -> float | None:
        if self._handle is None:
            return None
        try:
            return float(question())
        except self._nvml.NVMLError:
            return None

    def fill(self, memory: events.Memory) -> None:
        """Set utilisation (%), power (W) and temperature (°C) where they can be had."""
        memory.utilisation = self._ask(lambda: self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
        memory.power = self._ask(lambda: self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000)
        memory.temperature = self._ask(lambda: self._nvml.nvmlDeviceGetTemperature(self._handle, 0))


def read_memory(device: torch.device, process: psutil.Process, nvml: Nvml) -> events.Memory:
    """Memory of host and device, in bytes."""
    host = psutil.virtual_memory()
    memory = events.Memory(
        rss=process.memory_info().rss,
        cpu_percent=process.cpu_percent(),
        host_total=host.total,
        host_available=host.available,
    )
    if device.type == "cuda":
        facts = torch.cuda.memory_stats(device)
        memory.allocated = facts.get("allocated_bytes.all.current", 0)
        memory.reserved = facts.get("reserved_bytes.all.current", 0)
        memory.peak = facts.get("allocated_bytes.all.peak", 0)
        memory.inactive_split = facts.get("inactive_split_bytes.all.current", 0)
        memory.retries = facts.get("num_alloc_retries", 0)
        memory.ooms = facts.get("num_ooms", 0)
        memory.device_free, memory.device_total = torch.cuda.mem_get_info(device)
        nvml.fill(memory)
    return memory


class Heart(threading.Thread):
    """Emits a heartbeat and memory figures at an interval until stopped."""

    def __init__(
        self,
        emit: Callable[[events.Event], None],
        device: torch.device,
        seconds: float,
        paused: Callable[[], bool],
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._emit, self._device, self._seconds, self._paused = emit, device, seconds, paused
        self._done = threading.Event()

    def run(self) -> None:
        process = psutil.Process()
        nvml = Nvml(self._device)
        while True:
            self._emit(events.Beat(paused=self._paused()))
            # No figure is worth the heartbeat: a lost device or an exhausted table of files must not end this thread.
            with suppress(psutil.Error, OSError, RuntimeError):
                self._emit(read_memory(self._device, process, nvml))
            if self._done.wait(self._seconds):
                return

    def stop(self) -> None:
        self._done.set()
        self.join()
