"""Recovery by a group of ranks: which chunks are whose, and how their images come together.

A chunk is recovered by one rank alone, without a word to the others; its images are a file that all can read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from engine.checkpoints import DIGEST_BYTES
from engine.chunks import Chunk
from engine.context import Context
from engine.distributed.planning import chunk_cost
from engine.errors import RankLost


def own_chunks(ctx: Context, chunks: Sequence[Chunk], path_of: Callable[[Chunk], Path], work: str) -> list[Chunk]:
    """The chunks of this rank among those that are not finished; all of them in a group of one."""
    if ctx.group.count == 1:
        return list(chunks)
    missing = [n for n, chunk in enumerate(chunks) if ctx.group.leads and _work_of(path_of(chunk)) != work]
    left = ctx.group.agreed("recover", lambda: missing)
    costs = [chunk_cost(len(chunks[n].labels_B), ctx.config.recover.iterations) for n in left]
    return [chunks[left[place]] for place in ctx.group.shares(costs)]


def take_others(
    ctx: Context,
    chunks: Sequence[Chunk],
    mine: Sequence[Chunk],
    path_of: Callable[[Chunk], Path],
    read: Callable[[Path], torch.Tensor | None],
    put: Callable[[Chunk, torch.Tensor], None],
) -> None:
    """Wait until all ranks are done, and ``put`` the images they have left. Raises Stopped, RankLost."""
    if ctx.group.count == 1:
        return
    ctx.group.meet("recover")
    own = {chunk.index for chunk in mine}
    for chunk in chunks:
        if chunk.index in own:
            continue
        path = ctx.group.file(path_of(chunk))
        images = read(path)
        if images is None:
            path.unlink(missing_ok=True)
            raise RankLost(f"{path} is damaged", "resume the run: its chunk is recovered again")
        put(chunk, images)


def _work_of(path: Path) -> str:
    """What a finished chunk says it is of, read from its head alone; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(DIGEST_BYTES)
            head = file.read(int.from_bytes(file.read(8), "little"))
        state = json.loads(json.loads(head)["__metadata__"]["state"])
        return str(state["work"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return ""
