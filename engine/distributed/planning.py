"""Who does what: a static plan of independent shards over ranks, balanced on their estimated costs. Torch-free."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

#: Most shards of a stage whose parts are files of their own: enough to balance 64 ranks, few enough to list and merge.
MOST_SHARDS = 128
#: A step costs as much as so many more images: what does not depend on the number of images in it.
STEP_IMAGES = 4.0


def balanced(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Indices of the shards of each rank, ascending: the costliest first, each to the rank with the least so far.

    A function of its arguments alone, so every rank that has the costs has the plan.
    """
    loads = [(0.0, 0, rank) for rank in range(ranks)]
    plan: list[list[int]] = [[] for _ in range(ranks)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        load, count, rank = heapq.heappop(loads)
        plan[rank].append(index)
        heapq.heappush(loads, (load + costs[index], count + 1, rank))
    return [sorted(shards) for shards in plan]


def imbalance(costs: Sequence[float], plan: Sequence[Sequence[int]]) -> float:
    """The costliest rank's share over the mean one; 1 is perfect balance, and what an empty plan has."""
    loads = [sum(costs[index] for index in shards) for shards in plan]
    return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0


def chunk_cost(images: int, iterations: int) -> float:
    """Cost of recovering a chunk, in image-iterations."""
    return iterations * (images + STEP_IMAGES)


def ranges(count: int, least: int = 1, most: int = MOST_SHARDS) -> list[range]:
    """``count`` units in consecutive shards of at least ``least``, at most ``most`` shards.

    It depends on no number of ranks: shards are what stays the same when that changes.
    """
    size = max(least, -(-count // most))
    return [range(first, min(first + size, count)) for first in range(0, count, size)]
