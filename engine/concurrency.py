"""Chunks side by side on one device: a step of each in turn, from one thread.

A GPU is asked for steps faster than it does them, so that those of different chunks overlap and fill what small ones
leave idle. On a CPU nothing is gained by it. A chunk's images are the same in any company. Torch-free.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

from engine.config import RunConfig
from engine.errors import Stopped

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
#: Work that yields after each of its steps and returns what it made.
Steps = Generator[None, None, Result]

#: Multiplications of a step, forward, that fill a GPU: twice as many take an H100 about 0.3 ms, as long as some hundred
#: kernels take to start.
FILLING = 3e10
#: Chunks side by side at most, where the configuration does not say.
MOST = 16


def chunks_at_once(config: RunConfig, chunks: int, multiplications: float, cuda: bool) -> int:
    """How many of so many chunks are optimised side by side where memory has room for them.

    ``multiplications`` are those of a forward pass of one chunk. A number that is configured is taken as it is.
    """
    wanted = config.recover.concurrent
    if not wanted:
        wanted = min(MOST, math.ceil(FILLING / max(multiplications, 1.0))) if cuda else 1
    return max(1, min(wanted, chunks))


def alone(begin: Callable[Arguments, Steps[Result]]) -> Callable[Arguments, Result]:
    """A function that does the work that ``begin`` begins to its end, and returns what it made."""

    @wraps(begin)
    def whole(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return finished(begin(*args, **kwargs))

    return whole


def finished(work: Steps[Result]) -> Result:
    """What one work makes, done alone from beginning to end."""
    ((_, result),) = side_by_side([lambda: work], lambda: 1)
    return result


def side_by_side(
    works: Sequence[Callable[[], Steps[Result]]],
    at_once: Callable[[], int],
    before_round: Callable[[int], None] = lambda _running: None,
) -> Iterator[tuple[int, Result]]:
    """Do works, several of them a step in turn; yields number and result of each as it is finished.

    ``at_once`` says before each round how many may run; ``before_round`` is told how many do. When one is stopped no
    other begins, and those that run go on until they are stopped too. Raises what a work raises.
    """
    waiting, running = deque(range(len(works))), dict[int, Steps[Result]]()
    stopped: Stopped | None = None
    while running or (waiting and stopped is None):
        while waiting and stopped is None and len(running) < max(1, at_once()):
            number = waiting.popleft()
            running[number] = works[number]()
        before_round(len(running))
        for number, work in list(running.items()):
            try:
                next(work)
            except StopIteration as end:
                del running[number]
                yield number, end.value
            except Stopped as error:
                del running[number]
                stopped = error
    if stopped is not None:
        raise stopped
