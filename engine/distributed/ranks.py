"""Which rank of a group this process is, and which device is its own. Torch-free.

``torchrun`` says it in RANK, WORLD_SIZE, LOCAL_RANK and so on; ``srun`` in SLURM_PROCID, SLURM_STEP_NUM_TASKS and
SLURM_LOCALID. A rank sees one GPU only, through CUDA_VISIBLE_DEVICES: that respects the mask it was given, and is the
one way to name an instance of a GPU that is partitioned (MIG).
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from engine import devices
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import RunSection

#: Set by our own supervisor to its pid; it then holds the run's lock and its place in the queue.
SUPERVISED = "WMDD_SUPERVISED"
MASK = "CUDA_VISIBLE_DEVICES"
#: From <linux/prctl.h>: the signal a process gets when its parent dies.
PR_SET_PDEATHSIG = 1
#: Exit code of a rank whose torchrun is gone.
ORPHAN_CODE = 70
FIRST_PORT, PORTS = 20_000, 20_000


@dataclass(frozen=True)
class Rank:
    """A process of a group. ``local`` counts the ranks of this host; ``restarts`` is how often torchrun may still
    start the group again; ``supervised`` ranks were started by this program."""

    number: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1
    elastic: bool = False
    restarts: int = 0
    attempt: int = 0
    supervised: bool = False

    @property
    def leads(self) -> bool:
        """The first rank keeps the run's lock, event file and report."""
        return self.number == 0


ALONE = Rank()


def here(environ: MutableMapping[str, str]) -> Rank:
    """The rank of this process. What srun says is repeated in the names ``torch.distributed`` reads."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS", "1")
    if "RANK" not in environ and tasks.isdecimal() and int(tasks) > 1:
        _as_torchrun_says(environ, tasks)
    count = int(environ.get("WORLD_SIZE", "1"))
    if count < 2:
        return ALONE
    local = int(environ.get("LOCAL_RANK", "0"))
    attempt = int(environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return Rank(
        number=int(environ["RANK"]),
        count=count,
        local=local,
        local_count=int(environ.get("LOCAL_WORLD_SIZE", str(local + 1))),
        elastic="TORCHELASTIC_RUN_ID" in environ,
        restarts=int(environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) - attempt,
        attempt=attempt,
        supervised=SUPERVISED in environ,
    )


def _as_torchrun_says(environ: MutableMapping[str, str], tasks: str) -> None:
    environ["RANK"] = environ.get("SLURM_PROCID", "0")
    environ["WORLD_SIZE"] = tasks
    environ["LOCAL_RANK"] = environ.get("SLURM_LOCALID", "0")
    per_node = environ.get("SLURM_STEP_TASKS_PER_NODE", "") or environ.get("SLURM_TASKS_PER_NODE", "")
    environ.setdefault("LOCAL_WORLD_SIZE", "".join(re.findall(r"^\d+", per_node)) or tasks)
    nodes = environ.get("SLURM_STEP_NODELIST", "") or environ.get("SLURM_JOB_NODELIST", "")
    environ.setdefault("MASTER_ADDR", first_host(nodes) or "127.0.0.1")
    job = environ.get("SLURM_JOB_ID", "0")
    environ.setdefault("MASTER_PORT", str(FIRST_PORT + (int(job) if job.isdecimal() else 0) % PORTS))


def first_host(nodes: str) -> str:
    """The first name of a Slurm node list: "gpu[003-006,9],login" begins with gpu003."""
    found = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    return found[1] + (found[2] or "") if found else ""


def named_devices(names: Sequence[str], mask: str | None) -> list[str]:
    """The devices of this host's ranks: those named, or for "all" every GPU that can be seen. Raises ConfigError."""
    if list(names) != ["all"]:
        return list(names)
    entries = _entries(mask)
    count = len(devices.gpus()) if entries is None else len(entries)
    if not count:
        raise ConfigError(
            "run.devices = 'all': this machine shows no GPU",
            "use run.devices = 'cpu,cpu', or check the driver with `wmdd-tui doctor`",
        )
    return [f"cuda:{number}" for number in range(count)]


def _entries(mask: str | None) -> list[str] | None:
    """What a mask lets be seen, None without one; what follows a wrong entry is hidden, as CUDA has it."""
    if mask is None:
        return None
    entries = [entry.strip() for entry in mask.split(",")]
    wrong = next((index for index, entry in enumerate(entries) if not entry or entry.startswith("-")), len(entries))
    return entries[:wrong]


def own_device(section: RunSection, rank: Rank, environ: MutableMapping[str, str]) -> str:
    """The PyTorch name of this process's device; of the GPUs it leaves only that one visible.

    To be asked before CUDA is used. Raises ConfigError.
    """
    mask = environ.get(MASK)
    if section.devices:
        names = named_devices(section.devices, mask)
        if rank.local >= len(names):
            raise ConfigError(
                f"run.devices names {len(names)} devices, and this host has {rank.local_count} ranks",
                "name one for each rank, or leave run.devices empty",
            )
        name = names[rank.local]
    elif rank.count == 1 or section.device == "cpu":
        return section.device
    elif section.device in ("auto", "cuda"):
        seen = _entries(mask)
        if section.device == "auto" and seen is not None and not seen:
            return "cpu"
        # Slurm may have bound each task to a GPU of its own.
        name = f"cuda:{0 if seen is not None and len(seen) == 1 else rank.local}"
    else:
        raise ConfigError(
            f"run.device = '{section.device}' names one GPU for {rank.count} ranks",
            "use run.device = 'auto', or name one for each rank in run.devices",
        )
    if name == "cpu":
        return name
    environ[MASK] = _masked(name, mask)
    return "auto" if not section.devices and section.device == "auto" else "cuda:0"


def _masked(name: str, mask: str | None) -> str:
    """The entry of CUDA_VISIBLE_DEVICES that shows one device alone. Raises ConfigError."""
    if not name.startswith("cuda:"):
        return name  # GPU-… and MIG-… are such entries
    number, entries = int(name.partition(":")[2]), _entries(mask)
    if entries is None:
        return str(number)
    if number >= len(entries):
        raise ConfigError(
            f"{name} is not among the {len(entries)} devices of CUDA_VISIBLE_DEVICES = '{mask}'",
            f"name devices from 0 to {len(entries) - 1}",
        )
    return entries[number]


def end_with_parent(grandparent: str = "") -> None:
    """Have this process killed when its parent dies, where the system can; a lone rank would never end.

    ``grandparent`` is the pid of whoever started the parent: where it is another already, the parent is gone.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if grandparent:
        with suppress(psutil.Error):
            if psutil.Process(os.getppid()).ppid() == int(grandparent):
                return
        os._exit(ORPHAN_CODE)
