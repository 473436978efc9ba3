"""How the chunks of one process go along: how many at a time, how far they are, when they are saved."""

from __future__ import annotations

from engine.chunks import Chunk
from engine.context import Context
from engine.memory import reserved_bytes, times_that_fit
from engine.optimise import WARM_UP


class Course:
    """The course of ``chunks`` chunks, ``wanted`` of them side by side where memory has room for them.

    ``saving`` is True in a round in which every running chunk writes its checkpoint.
    """

    def __init__(self, ctx: Context, chunks: int, wanted: int) -> None:
        self._ctx = ctx
        self._wanted = wanted
        self._fitting = 0 if ctx.device.type == "cuda" else wanted
        self._reserved = reserved_bytes(ctx.device, only_used=True)
        self._total = chunks * ctx.config.recover.iterations
        self._done: dict[int, int] = {}
        self._sum = self._steps = 0
        self.saving = False

    def at_once(self) -> int:
        """How many chunks may run. The first is alone until its step is recorded, which shows what it takes."""
        if not self._fitting and self._steps > WARM_UP:
            taken = reserved_bytes(self._ctx.device) - self._reserved
            self._fitting = max(1, min(self._wanted, 1 + times_that_fit(taken, self._ctx.device)))
            if self._fitting < self._ctx.config.recover.concurrent:
                self._ctx.warn(f"recover: memory has room for {self._fitting} of the recover.concurrent chunks")
        return self._fitting or 1

    def begin_round(self, running: int) -> None:
        """Decide for all running chunks at once, so that none waits for the next time because another saved first."""
        self._ctx.pace.together = running
        self.saving = self._ctx.checkpoint_due()

    def look(self, images: int, found: int) -> None:
        """Before its first step, a chunk of so many images looks for patches to start from, and has found some."""
        note = f"patches of image {found + 1} of {images}"
        self._ctx.progress("recover", self._sum, self._total, "iterations", note)

    def step(self, chunk: Chunk, done: int) -> None:
        """A step was done; with it, or with those of earlier engines, so many of its chunk are."""
        self._steps += 1
        self._reach(chunk, done)

    def end(self, chunk: Chunk) -> None:
        """A chunk is done, now or by an earlier engine."""
        self._reach(chunk, self._ctx.config.recover.iterations)

    def _reach(self, chunk: Chunk, done: int) -> None:
        self._sum += done - self._done.get(chunk.index, 0)
        self._done[chunk.index] = done
        self._ctx.progress("recover", self._sum, self._total, "iterations")
