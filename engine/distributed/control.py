"""Stop, pause, checkpoints and failures of a whole group: the first rank takes requests, all ranks obey. Torch-free.

Orders travel through the group's key-value store, which every rank asks about as often as one asks its control folder.
"""

from __future__ import annotations

import time
from types import FrameType
from typing import Protocol

import msgspec

from engine.control import POLL_SECONDS, Control
from engine.distributed.ranks import Rank
from engine.errors import DeviceFailed, EngineError, RankLost
from engine.rundir import RunDir

ORDERS, FAILED, HEARD = "orders", "failed", "heard"
#: How long a rank that failed waits for the first one to hear of it.
HEARING_SECONDS = 20.0


class Store(Protocol):
    """What is used of a ``torch.distributed.Store``."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


class Failure(msgspec.Struct, frozen=True):
    """Why a rank could not go on."""

    rank: int
    error: str
    message: str
    remedy: str
    exit_code: int


class Orders(msgspec.Struct, frozen=True):
    """What the first rank tells all: ``checkpoints`` counts the requests for one."""

    stop: bool = False
    paused: bool = False
    checkpoints: int = 0
    failure: Failure | None = None


class GroupControl(Control):
    """As ``Control``, for all ranks of a group once they have joined.

    ``told_to_end`` is True when this process itself was signalled to end, ``stop_requested`` when the whole run was
    asked to stop, ``failure`` what made a rank fail.
    """

    def __init__(self, run: RunDir, rank: Rank) -> None:
        super().__init__(run)
        self._rank = rank
        self._store: Store | None = None
        self._orders = Orders()
        self._checkpoints = 0
        self.told_to_end = False
        self.stop_requested = False
        self.failure: Failure | None = None

    def join(self, store: Store) -> None:
        """From now on orders go through the store, which the first rank fills before any other asks."""
        if self._rank.leads:
            store.set(ORDERS, _text(self._orders))
        self._store = store

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.told_to_end = True
        super()._on_stop(number, frame)

    def _on_checkpoint(self, number: int, frame: FrameType | None) -> None:
        self._checkpoints += 1
        super()._on_checkpoint(number, frame)

    def _poll(self) -> None:
        now = time.monotonic()
        if now - self._polled < POLL_SECONDS:
            return
        try:
            if self._rank.leads:
                self._lead()
            else:
                self._polled = now
                self._obey()
        except RuntimeError as error:
            raise RankLost(
                f"rank {self._rank.number} hears no more of the group: {str(error).splitlines()[0]}", "resume the run"
            ) from None

    def _lead(self) -> None:
        """Take the requests of the control folder, and tell all."""
        stopped, asked = self._stop, self._checkpoint
        super()._poll()
        self.stop_requested |= self._stop and not stopped and not self.told_to_end
        self._checkpoints += self._checkpoint and not asked
        if self._store is None:
            return
        if self.failure is None and self._store.check([FAILED]):
            self.failure = msgspec.json.decode(self._store.get(FAILED), type=Failure)
            self._store.set(HEARD, "")
            self._stop = True
        # A signal reaches every process that it is meant for: torchrun and srun send it to all ranks.
        stop = self.stop_requested or self.failure is not None or (self.told_to_end and not self._rank.elastic)
        orders = Orders(stop, self.paused, self._checkpoints, self.failure)
        if orders != self._orders:
            self._orders = orders
            self._store.set(ORDERS, _text(orders))

    def _obey(self) -> None:
        if self._store is None:
            return
        orders = msgspec.json.decode(self._store.get(ORDERS), type=Orders)
        if orders.stop:
            self._stop, self.failure = True, orders.failure
            self.stop_requested = orders.failure is None
        self.paused = orders.paused
        self._checkpoint |= orders.checkpoints > self._orders.checkpoints
        self._orders = orders

    def report(self, failure: Failure) -> None:
        """Tell the group that this rank cannot go on, and wait until the first one has heard it. Raises nothing."""
        self.failure = self.failure or failure
        if self._store is None:
            return
        deadline = time.monotonic() + HEARING_SECONDS
        try:
            if self._rank.leads:
                self._store.set(ORDERS, _text(Orders(True, self.paused, self._checkpoints, failure)))
                return
            self._store.set(FAILED, _text(failure))
            while time.monotonic() < deadline and not self._store.check([HEARD]):
                time.sleep(POLL_SECONDS)
        except RuntimeError:
            return  # the first rank is gone, and with it the store


def failure_of(error: Exception, named: EngineError | None, rank: Rank) -> Failure:
    """What the group is told of an error; ``named`` where it is one of ours."""
    if named is None:
        return Failure(rank.number, type(error).__name__, str(error) or repr(error), "", 1)
    return Failure(rank.number, type(named).__name__, named.message, named.remedy, named.exit_code)


def worth_another_try(error: EngineError, rank: Rank) -> bool:
    """Whether torchrun shall start the group again: where a rank or a device failed, not the work."""
    return rank.elastic and rank.restarts > 0 and isinstance(error, RankLost | DeviceFailed)


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
