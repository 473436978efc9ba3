"""The ranks of a run as one of them sees them: where they wait for each other, agree, and exchange what is small.

Everything large goes through files of the run directory. A group of one does nothing and costs nothing.
"""

from __future__ import annotations

import copy
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # public, but not by name
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from engine.distributed.control import GroupControl, Store
from engine.distributed.planning import balanced
from engine.distributed.ranks import Rank
from engine.errors import ConfigError, RankLost, Stopped
from engine.rundir import RunDir

JOIN_SECONDS = 1800.0
#: No collective may outlast this; ranks that wait for each other's shards wait in ``meet``, which has no limit.
COLLECTIVE_SECONDS = 86400.0
LOOK_SECONDS = 0.05
#: A rank whose event file stands still for so long is lost. With torchrun its end is noticed at once.
LOST_SECONDS = 120.0
#: The store lives in the first rank where torchrun has none; it stays until the others have left.
LEAVE_SECONDS = 20.0
#: A network file system may show a file of another host so much later.
SHOWN_SECONDS = 90.0
#: In what an exchange that failed says of itself, whatever the backend.
OF_THE_GROUP = ("gloo", "nccl", "connection", "socket", "broken pipe", "peer", "timed out")
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
T = TypeVar("T")


@dataclass
class Group:
    """``number`` of ``count`` ranks. ``waiting`` is True while this one waits for others."""

    number: int = 0
    count: int = 1
    store: Store | None = None
    control: GroupControl | None = None
    run: RunDir | None = None
    waiting: bool = False
    _seen: dict[int, tuple[int, float]] = field(default_factory=dict)
    _look_at: float = 0.0
    _exchanges: int = 0

    @property
    def leads(self) -> bool:
        """True for the first rank, which keeps what the run is known by: artifacts, report, student."""
        return self.number == 0

    def shares(self, costs: Sequence[float]) -> list[int]:
        """The shards of this rank by the static plan; all of them in a group of one."""
        return balanced(costs, self.count)[self.number]

    def agreed(self, name: str, make: Callable[[], T]) -> T:
        """The first rank's value (plain, as JSON has it), known to all. Raises Stopped, RankLost."""
        if self.store is None:
            return make()
        key = self._next("agreed", name)
        if self.leads:
            value = make()
            self.store.set(key, json.dumps(value))
            return value
        self._wait([key], [0], name)
        found: T = json.loads(self.store.get(key))
        return found

    def gathered(self, name: str, value: T) -> list[T]:
        """The values of all ranks (plain, as JSON has them), in their order. Raises Stopped, RankLost."""
        if self.store is None:
            return [value]
        key = self._next("gathered", name)
        self.store.set(f"{key}/{self.number}", json.dumps(value))
        keys = [f"{key}/{rank}" for rank in range(self.count)]
        self._wait(keys, list(range(self.count)), name)
        return [json.loads(self.store.get(one)) for one in keys]

    def meet(self, name: str) -> None:
        """Wait until all ranks have come so far. Raises Stopped, RankLost."""
        if self.store is None:
            return
        key = self._next("met", name)
        self.store.set(f"{key}/{self.number}", "")
        self._wait([f"{key}/{rank}" for rank in range(self.count)], list(range(self.count)), name)

    def _next(self, what: str, name: str) -> str:
        """A key of its own for each exchange: all ranks go through them in the same order."""
        self._exchanges += 1
        return f"{what}/{self._exchanges}/{name}"

    def must_agree(self, name: str, value: str, what: str) -> None:
        """All ranks must have the first one's value. Raises ConfigError where this one has another."""
        if self.agreed(name, lambda: value) != value:
            raise ConfigError(
                f"rank {self.number} has {what} other than rank 0's",
                "give every host the same files under the same paths, and the same versions",
            )

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, raised if any rank has raised it; all ranks must ask together. Raises Stopped, RankLost."""
        if self.store is None:
            return list(flags)
        shared = torch.tensor(flags, dtype=torch.int32)
        with self.collective():
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in shared.tolist()]

    def copy_of_first(self, network: nn.Module) -> None:
        """Give every rank the first one's parameters and buffers."""
        if self.store is None:
            return
        with self.collective():
            for tensor in network.state_dict().values():
                held = tensor.contiguous()  # channels_last is no layout that is sent as it is
                dist.broadcast(held, 0)
                tensor.copy_(held)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the ranks, in every one."""
        if self.store is None:
            return tensor
        total = tensor.clone()
        with self.collective():
            dist.all_reduce(total)
        return total

    def parallel(self, network: nn.Module, sync_bn: bool) -> nn.Module:
        """A module with the network's own tensors, whose gradients are the mean over ranks; itself in a group of one.

        With ``sync_bn`` its BatchNorm layers see the batches of all ranks as one.
        """
        if self.store is None:
            return network
        if sync_bn:
            # Another module around the same tensors: what follows the training knows BatchNorm layers by their type.
            own = [*network.parameters(), *network.buffers()]
            network = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network, {id(one): one for one in own}))
        with self.collective():
            return DistributedDataParallel(network)

    def part(self, rows: int) -> tuple[slice, float]:
        """This rank's share of a batch of ``rows``, and by what its mean loss is multiplied, so that the mean over
        ranks of the gradients is that of the whole batch. Too small a batch, which BatchNorm could not take in parts,
        every rank does whole."""
        if rows < 2 * self.count:
            return slice(0, rows), 1.0
        first, last = rows * self.number // self.count, rows * (self.number + 1) // self.count
        return slice(first, last), (last - first) * self.count / rows

    def file(self, path: Path) -> Path:
        """A file another rank has written. Raises RankLost where it does not appear."""
        deadline = time.monotonic() + SHOWN_SECONDS
        while not path.exists():
            os.listdir(path.parent)  # which has a network file system look again
            if time.monotonic() > deadline:
                raise RankLost(
                    f"rank {self.number} does not see {path}, which another rank has written",
                    "put the run directory (WMDD_HOME) on a file system that all hosts share",
                )
            time.sleep(LOOK_SECONDS)
        return path

    @contextmanager
    def collective(self) -> Iterator[None]:
        """An exchange between all ranks at once. One that fails because others were told to stop raises Stopped."""
        try:
            yield
        except RuntimeError as error:
            if self.store is None or not any(word in str(error).lower() for word in OF_THE_GROUP):
                raise
            if self.control is not None and self.control.interrupted():
                raise Stopped("stopped while ranks exchanged") from None
            told = str(error).splitlines()[0]
            raise RankLost(f"rank {self.number} lost the others: {told}", "resume the run") from None

    def _wait(self, keys: list[str], ranks: list[int], name: str) -> None:
        assert self.store is not None
        assert self.control is not None
        self.waiting = True
        try:
            while not self.store.check(keys):
                if self.control.interrupted():
                    raise Stopped(f"stopped in {name.partition('/')[0]}")
                self._look_for_lost([rank for rank, key in zip(ranks, keys, strict=True) if rank != self.number])
                time.sleep(LOOK_SECONDS)
        except RuntimeError as error:
            raise RankLost(f"rank {self.number} lost rank 0: {error}", "resume the run") from None
        finally:
            self.waiting = False

    def _look_for_lost(self, ranks: list[int]) -> None:
        """Raises RankLost for a rank that has given no sign of life for long."""
        assert self.run is not None
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOST_SECONDS / 20
        for rank in ranks:
            try:
                size = self.run.rank_events_file(rank).stat().st_size
            except OSError:
                size = 0
            before, since = self._seen.get(rank, (-1, now))
            if size != before:
                self._seen[rank] = size, now
            elif now - since > LOST_SECONDS:
                raise RankLost(
                    f"rank {rank} has given no sign of life for {LOST_SECONDS:.0f} s", "look at its host, then resume"
                )

    def leave(self, together: bool) -> None:
        """Part from the group; the first rank last where all leave ``together``, as the store may be its own.

        Raises nothing.
        """
        if self.store is None:
            return
        try:
            if not self.leads:
                self.store.set(f"left/{self.number}", "")
                return
            deadline = time.monotonic() + (LEAVE_SECONDS if together else 0.0)
            keys = [f"left/{rank}" for rank in range(1, self.count)]
            while time.monotonic() < deadline and not self.store.check(keys):
                time.sleep(LOOK_SECONDS)
        except RuntimeError:
            return


def join(rank: Rank, device: torch.device, run: RunDir, control: GroupControl) -> Group:
    """Meet the other ranks: NCCL for what is on GPUs, gloo for the rest. Raises RankLost."""
    if rank.local_count == rank.count:
        os.environ.setdefault(
            "GLOO_SOCKET_IFNAME", LOOPBACK
        )  # a host whose name resolves to nothing has that one still
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
        meeting = _meeting(store, rank, control)
        own: Any = PrefixStore(f"wmdd/{meeting}", store)
        control.join(own)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore(f"group/{meeting}", store),
            rank=rank.number,
            world_size=rank.count,
            timeout=timedelta(seconds=COLLECTIVE_SECONDS),
        )
    except (RuntimeError, ValueError) as error:
        raise RankLost(
            f"rank {rank.number} of {rank.count} could not meet the others: {str(error).splitlines()[0]}",
            "check MASTER_ADDR and MASTER_PORT, or --rdzv-endpoint, and that hosts may talk to each other",
        ) from None
    return Group(rank.number, rank.count, own, control, run)


def _meeting(store: Any, rank: Rank, control: GroupControl) -> str:
    """A name of this very meeting, given by the first rank: torchrun's store still holds what the ranks before a
    restart had put into it, addresses of dead processes among it.

    Each rank asks with a word of its own, so that no answer to one that is gone can be taken for one's own. Raises
    RankLost, Stopped, and RuntimeError where the store is gone.
    """
    deadline = time.monotonic() + JOIN_SECONDS

    def wait() -> None:
        if control.told_to_end:
            raise Stopped("stopped before the ranks had met")
        if time.monotonic() > deadline:
            raise RankLost(f"rank {rank.number} waited {JOIN_SECONDS:.0f} s for the others", "start all hosts at once")
        time.sleep(LOOK_SECONDS)

    own = secrets.token_hex(8)
    if not rank.leads:
        store.set(f"ask/{rank.number}", own)
        while not store.check([f"answer/{own}"]):
            wait()
        meeting: str = store.get(f"answer/{own}").decode()
        store.set(f"heard/{meeting}/{rank.number}", "")
        return meeting
    left = list(range(1, rank.count))
    while left:
        for number in left:
            if store.check([f"ask/{number}"]):
                store.set(f"answer/{store.get(f'ask/{number}').decode()}", own)
        left = [number for number in left if not store.check([f"heard/{own}/{number}"])]
        wait()
    return own
