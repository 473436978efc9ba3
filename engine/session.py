"""One engine process: device, threads, signals, heartbeat, then the pipeline."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine import events, faults, rundir
from engine.allocator import keep_freed_memory
from engine.context import Context
from engine.control import Control
from engine.distributed.control import GroupControl, failure_of, worth_another_try
from engine.distributed.group import Group, join
from engine.distributed.ranks import ALONE, Rank
from engine.errors import ConfigError, Stopped
from engine.hooks import StallWatch
from engine.pipeline import execute
from engine.report import versions
from engine.telemetry import Heart


def choose_device(name: str) -> torch.device:
    """The device a configuration asks for. Raises ConfigError where it is absent."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device("cuda:0" if name == "cuda" else name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise ConfigError(
                f"run.device = '{name}': this machine offers PyTorch {count} CUDA device(s)",
                "use run.device = 'cpu' or 'auto', or check the driver with `wmdd-tui doctor`",
            )
    return device


def take(device: torch.device) -> None:
    """Compute on a device from here on: what names no device means this one."""
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    else:
        keep_freed_memory()


def work(
    run: rundir.RunDir, emit: Callable[[events.Event], None], control: Control, device_name: str, rank: Rank = ALONE
) -> None:
    """Run the whole pipeline of a run directory, or a rank's share of it. Raises EngineError subclasses."""
    config = run.config()
    device = choose_device(device_name)
    torch.set_num_threads(config.run.threads)
    take(device)
    if rank.leads:
        rundir.write_process(run, versions(), run.process() if rank.supervised else None)
    group = Group()
    heart = Heart(emit, device, config.run.beat_seconds, lambda: control.paused)
    heart.start()
    watch = StallWatch(run, config, emit, lambda: control.paused or group.waiting)
    watch.start()
    try:
        if isinstance(control, GroupControl):
            group = join(rank, device, run, control)
        execute(Context(config, device, run, watch.emit, control.interrupted, control.checkpoint_asked, group))
        group.meet("end")
        group.leave(True)
    except Exception as error:
        if isinstance(control, GroupControl):
            group.leave(_told(error, run, rank, control))
        raise
    finally:
        watch.stop()
        heart.stop()


def _told(error: Exception, run: rundir.RunDir, rank: Rank, control: GroupControl) -> bool:
    """Tell the group why this rank ends, where the others must end too; True where they are known to do so."""
    named = faults.named(error, run)
    if isinstance(named, Stopped):
        return not control.told_to_end
    if named is not None and worth_another_try(named, rank):
        return False
    control.report(failure_of(error, named, rank))
    return True
