"""The images of chunks: optimised, several chunks side by side, or taken as they are; finished ones are kept.

Shapes: B images of a chunk, N of the synthetic set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from engine.checkpoints import DAMAGE, pack, read
from engine.chunks import Chunk
from engine.concurrency import Steps, chunks_at_once, side_by_side
from engine.context import Context
from engine.course import Course
from engine.data import Dataset
from engine.data.given import load_given
from engine.judges import Judge, targets_of
from engine.models.instrument import looking_into, multiplications
from engine.recover import recover_chunk, start_of, to_uint8
from engine.rundir import write_whole
from engine.starts import real_indices
from engine.verifier import Verifier

Made = Iterator[tuple[Chunk, torch.Tensor]]


def optimised(
    ctx: Context,
    dataset: Dataset,
    judges: Sequence[Judge],
    chunks: Sequence[Chunk],
    mine: Sequence[Chunk],
    work: str,
    verifier: Verifier | None,
) -> Made:
    """The chunks of this process as they are finished, each with its images, uint8 (B, 3, H, W) on the CPU.

    ``work`` identifies what determines the images: finished chunks and checkpoints of other work are not used.
    Raises Stopped, NonFiniteLoss, OutOfMemory.
    """
    if not mine:
        return
    size = dataset.resolution
    each = sum(multiplications(judge.network, size) for judge in judges)
    wanted = chunks_at_once(ctx.config, len(mine), each * len(mine[0].labels_B), ctx.device.type == "cuda")
    course = Course(ctx, len(mine), wanted)
    with ExitStack() as open_ones:
        forwards = [open_ones.enter_context(looking_into(judge.network, size)) for judge in judges]

        def images_of(chunk: Chunk) -> Steps[torch.Tensor]:
            kept = path_of(ctx, chunk)
            images = finished_images(ctx, kept, work)
            if images is None:
                wants = [targets_of(ctx, chunk, judge) for judge in judges]
                teachers = list(zip(forwards, wants, strict=True))
                images = yield from recover_chunk(ctx, dataset, teachers, chunk, len(chunks), work, course, verifier)
                write_whole(kept, pack({"images": images}, {"chunk": chunk.index, "work": work}))
            for slot in ctx.run.checkpoints.glob(f"recover-{chunk.index:06d}.*"):
                slot.unlink()
            course.end(chunk)
            return images

        works = [partial(images_of, chunk) for chunk in mine]
        for number, images in side_by_side(works, course.at_once, course.begin_round):
            yield mine[number], images


def as_they_are(ctx: Context, dataset: Dataset, judge: Judge, chunks: Sequence[Chunk]) -> Made:
    """Every chunk with its images, uint8 (B, 3, H, W): given, of random photographs, or where recovery would begin.

    Raises Stopped, DataError (given images).
    """
    config, size = ctx.config, dataset.resolution
    given_NCHW = None
    if config.recover.objective == "given":
        given_NCHW = load_given(config.recover.path, dataset.class_ids, config.ipc, size)
    done, images = 0, sum(len(chunk.labels_B) for chunk in chunks)

    def tell(found: int) -> None:
        ctx.progress("recover", done + found, images, "images")

    with looking_into(judge.network, size) as forward:
        for chunk in chunks:
            ctx.stop_if_asked("recover")
            tell(0)
            if given_NCHW is not None:
                yield chunk, given_NCHW[chunk.labels_B * config.ipc + chunk.ordinals_B]
            elif config.recover.objective == "real":
                index = real_indices(chunk, dataset.train.labels_N, config.seed)
                yield chunk, dataset.train.batch(index).cpu()
            else:
                start_BCHW = start_of(ctx, dataset, forward, chunk, targets_of(ctx, chunk, judge), tell)
                yield chunk, to_uint8(start_BCHW, dataset.mean, dataset.std, nearest=True)
            done += len(chunk.labels_B)
        tell(0)


def path_of(ctx: Context, chunk: Chunk) -> Path:
    """Where a finished chunk is kept."""
    return ctx.run.checkpoints / f"chunk-{chunk.index:06d}.ckpt"


def finished_images(ctx: Context, path: Path, work: str) -> torch.Tensor | None:
    """The images of a finished chunk's file, uint8 (B, 3, H, W); None where there is none of this work."""
    try:
        found = read(path)
        if found.state.get("work") == work:
            return found.tensors["images"]
        ctx.warn(f"{path.name} is of other work than this run's, and its chunk is recovered again")
    except FileNotFoundError:
        pass
    except DAMAGE as error:
        ctx.warn(f"{path.name} is damaged ({error}), and its chunk is recovered again")
    return None
