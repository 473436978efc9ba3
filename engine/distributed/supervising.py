"""One engine process that starts a rank for each device through ``torch.distributed.run``. Torch-free.

The supervisor is what the run's lock, its place in the queue and ``proc.json`` belong to, so that all who watch or stop
a run see one engine. Ranks die with it. torchrun starts the group again when a rank is lost, which costs at most what
was done since the last checkpoint within a chunk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from engine import errors
from engine.control import INTERRUPTED_CODE, SECOND_INTERRUPT_SECONDS
from engine.distributed.ranks import MASK, SUPERVISED, end_with_parent, named_devices
from engine.errors import ConfigError
from engine.events import End
from engine.rundir import RunDir

#: What may handle a signal, as ``signal.signal`` takes and returns it.
Handler = Callable[[int, FrameType | None], Any] | int | None
RESTARTS = 3
PATIENCE_SECONDS = 60.0
MONITOR_SECONDS = 0.5
EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 3}


@dataclass(frozen=True)
class Nodes:
    """How many hosts take part, where they meet, and which of them this is; passed on to torchrun."""

    count: int = 1
    rdzv_endpoint: str = ""
    node_rank: int = 0

    def arguments(self) -> list[str]:
        """The options of ``python -m engine`` that say so."""
        if self.count == 1:
            return []
        return [
            f"--nnodes={self.count}", f"--rdzv-endpoint={self.rdzv_endpoint}", f"--node-rank={self.node_rank}",
        ]  # fmt: skip


#: A run of one host.
ALONE = Nodes()


def read_nodes(arguments: Sequence[str]) -> Nodes:
    """The inverse of ``Nodes.arguments``. Raises ConfigError."""
    found = {"--nnodes": "1", "--rdzv-endpoint": "", "--node-rank": "0"}
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if name not in found or not separator:
            raise ConfigError(f"unknown argument '{argument}'", f"known are {', '.join(found)}, each as NAME=VALUE")
        found[name] = value
    return checked_nodes(found["--nnodes"], found["--rdzv-endpoint"], found["--node-rank"])


def checked_nodes(count: str, rdzv_endpoint: str, node_rank: str) -> Nodes:
    """Hosts as somebody named them. Raises ConfigError."""
    if not count.isdecimal() or int(count) < 1:
        raise ConfigError(f"--nnodes {count} is no number of hosts", "give 1 or more")
    if not node_rank.isdecimal() or int(node_rank) >= int(count):
        raise ConfigError(f"--node-rank {node_rank} is none of {count} hosts", f"give 0 to {int(count) - 1}")
    if int(count) > 1 and not rdzv_endpoint:
        raise ConfigError(
            f"--nnodes {count} needs --rdzv-endpoint", "give HOST:PORT of the first host, the same on every one"
        )
    return Nodes(int(count), rdzv_endpoint, int(node_rank))


def command(run: RunDir, nodes: Nodes, ranks: int) -> list[str]:
    """The call of ``torch.distributed.run`` for this host's ranks."""
    meeting = ["--standalone", "--local-addr=127.0.0.1"]  # a host's own name may lead nowhere, and ranks wait for it
    if nodes.count > 1:
        meeting = [
            f"--nnodes={nodes.count}", "--rdzv-backend=c10d", f"--rdzv-endpoint={nodes.rdzv_endpoint}",
            f"--rdzv-id={run.id}", f"--rdzv-conf=is_host={int(nodes.node_rank == 0)}",
        ]  # fmt: skip
    return [
        sys.executable, "-m", "torch.distributed.run", *meeting, f"--nproc-per-node={ranks}",
        f"--max-restarts={RESTARTS}", f"--monitor-interval={MONITOR_SECONDS}", "-m", "engine", str(run.path),
    ]  # fmt: skip


def wanted_ranks(run: RunDir, nodes: Nodes) -> int:
    """Ranks on this host; 1 where the engine itself does the work. Raises ConfigError for an impossible device."""
    section = run.config().run
    count = len(named_devices(section.devices, os.environ.get(MASK))) if section.devices else 1
    return count if nodes.count == 1 else max(count, 1)


def supervise(run: RunDir, nodes: Nodes, ranks: int, stop_asked: Callable[[], bool]) -> int:
    """Start the ranks and stay until all have ended; returns torchrun's exit code.

    Signals become requests in the run's control folder, which the first rank takes: torchrun would pass SIGTERM on
    and kill whoever needs longer for a checkpoint, and does not pass SIGUSR1 on at all. Raises OSError.
    """
    threads = str(run.config().run.threads)
    environment = {
        **os.environ,
        SUPERVISED: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
    }
    if stop_asked():
        return EXIT_CODES["stopped"]
    process = subprocess.Popen(command(run, nodes, ranks), env=environment, preexec_fn=end_with_parent)
    previous = _pass_signals_on(run, process)
    try:
        return process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _pass_signals_on(run: RunDir, process: subprocess.Popen[bytes]) -> dict[signal.Signals, Handler]:
    """Turn signals into requests; a second interrupt within 3 s ends all at once."""
    interrupted = float("-inf")

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        now = time.monotonic()
        if number == signal.SIGINT and now - interrupted < SECOND_INTERRUPT_SECONDS:
            process.kill()
            os._exit(INTERRUPTED_CODE)
        if number == signal.SIGINT:
            interrupted = now
        run.request("stop")

    def checkpoint(_number: int, _frame: FrameType | None) -> None:
        run.request("checkpoint-now")

    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGUSR1: checkpoint}
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}


def exit_code_of(end: End) -> int:
    """The exit code that belongs to an ``end`` event."""
    return errors.exit_code_of(end.error) if end.error else EXIT_CODES.get(end.status, 1)


def lost(code: int) -> End:
    """The ``end`` of a group whose ranks left none."""
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return End(
        status="failed",
        error="RankLost",
        message=f"the ranks ended {how} and were started {RESTARTS} times again in vain; console.log tells more",
        remedy="resume the run: what was done is kept",
    )
