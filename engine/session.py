"""One engine process: device, threads, signals, heartbeat, then the pipeline."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine import events, rundir
from engine.context import Context
from engine.control import Control
from engine.errors import ConfigError
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


def work(run: rundir.RunDir, emit: Callable[[events.Event], None], control: Control) -> None:
    """Run the whole pipeline of a run directory. Raises EngineError subclasses."""
    config = run.config()
    device = choose_device(config.run.device)
    torch.set_num_threads(config.run.threads)
    rundir.write_process(run, versions())
    heart = Heart(emit, device, config.run.beat_seconds, lambda: control.paused)
    heart.start()
    watch = StallWatch(run, config, emit, lambda: control.paused)
    watch.start()
    try:
        execute(Context(config, device, run, watch.emit, control.interrupted, control.checkpoint_asked))
    finally:
        watch.stop()
        heart.stop()
