"""The BN terms of a whole run at bounded memory: when full, every second moment is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from engine.events import Layers

CAPACITY = 512


class Moments(Sequence[Layers]):
    """Evenly thinned moments from first to last; the newest is always the last element."""

    def __init__(self) -> None:
        self._kept: list[Layers] = []
        self._newest: Layers | None = None
        self._stride = 1
        self._seen = 0

    def append(self, event: Layers) -> None:
        """Take in the next moment."""
        if self._seen % self._stride == 0:
            self._kept.append(event)
            self._newest = None
            if len(self._kept) == CAPACITY:
                self._kept = self._kept[::2]
                self._stride *= 2
                self._newest = event
        else:
            self._newest = event
        self._seen += 1

    def _all(self) -> list[Layers]:
        return self._kept if self._newest is None else [*self._kept, self._newest]

    def __len__(self) -> int:
        return len(self._kept) + (self._newest is not None)

    @overload
    def __getitem__(self, index: int) -> Layers: ...
    @overload
    def __getitem__(self, index: slice) -> list[Layers]: ...
    def __getitem__(self, index: int | slice) -> Layers | list[Layers]:
        return self._all()[index]
