"""The recover stage as a whole: every chunk of the synthetic set, its files, and how good its images are.

A finished chunk is kept, so a resumed run goes on with the next. With ``recover.objective = "real"`` or
``"given"`` no chunk is optimised, nor with ``"start"``: the images are taken as they are and measured the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from engine.behind import Behind
from engine.checkpoints import DAMAGE, pack, read
from engine.chunks import Chunk
from engine.context import Context
from engine.data import Dataset
from engine.data.given import load_given
from engine.distributed.chunks import own_chunks, take_others
from engine.losses import Targets
from engine.models.instrument import Forward, looking_into
from engine.pictures import contact_sheet, image_path, png_bytes, to_pillow
from engine.quality import against_real
from engine.recipe import make_coefficients, make_targets
from engine.recover import recover_chunk, start_of, to_uint8
from engine.rundir import write_whole
from engine.softlabels import SyntheticSet
from engine.starts import real_indices
from engine.statistics import Statistics
from engine.verifier import Verifier


@dataclass(frozen=True)
class Points:
    """Barycenters of all classes: points (C, K, D), weights (C, K), W2² (C,); float64."""

    points_CKD: torch.Tensor
    weights_CK: torch.Tensor
    w2sq_C: torch.Tensor


@dataclass(frozen=True)
class Judge:
    """A teacher of a committee: its network, its statistics and barycenters of the real images."""

    network: nn.Module
    found: Statistics | None
    points: Points | None


def synthesise(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    chunks: list[Chunk],
    found: Statistics | None,
    points: Points | None,
    work: str,
    committee: Sequence[Judge] = (),
    verifier: Verifier | None = None,
) -> tuple[SyntheticSet, dict[str, dict[str, float]]]:
    """The synthetic set, and its quality beside that of as many random real photographs; what a verifier finds too.

    Without statistics (``found``), which images that are taken as they are can do without, there is no quality.
    ``work`` identifies what determines the images: finished chunks and checkpoints of other work are not used.
    ``committee`` are further teachers, by which images are optimised and not measured.
    Raises Stopped, NonFiniteLoss, OutOfMemory, DataError (given images), OSError (images cannot be written).
    """
    config = ctx.config
    classes, size = len(dataset.class_names), dataset.resolution
    images_NCHW = torch.zeros(classes * config.ipc, 3, size, size, dtype=torch.uint8)
    given_NCHW = None
    if config.recover.objective == "given":
        given_NCHW = load_given(config.recover.path, dataset.class_ids, config.ipc, size)

    def targets_of(chunk: Chunk) -> Targets:
        if found is None and not config.matches_no_class_statistics:
            raise ValueError("images that are optimised need statistics")
        return _targets(ctx, chunk, Judge(network, found, points))

    def positions(chunk: Chunk) -> torch.Tensor:
        return chunk.labels_B * config.ipc + chunk.ordinals_B

    def place(chunk: Chunk, images: torch.Tensor) -> None:
        images_NCHW[positions(chunk)] = images

    optimised = config.recover.objective not in ("given", "real", "start")
    mine = own_chunks(ctx, chunks, partial(_chunk_path, ctx), work) if optimised else chunks
    with ExitStack() as open_ones:
        behind = open_ones.enter_context(Behind(ctx.device))
        forward, *others = (
            open_ones.enter_context(looking_into(one, size))
            for one in (network, *(judge.network for judge in committee))
        )
        for turn, chunk in enumerate(mine):
            if given_NCHW is not None:
                images = given_NCHW[positions(chunk)]
            elif config.recover.objective == "real":
                index = real_indices(chunk, dataset.train.labels_N, config.seed)
                images = dataset.train.batch(index).cpu()
            elif config.recover.objective == "start":
                start_BCHW = start_of(ctx, dataset, forward, chunk, targets_of(chunk))
                images = to_uint8(start_BCHW, dataset.mean, dataset.std, nearest=True)
            else:
                ctx.turn = (turn, len(mine)) if ctx.group.count > 1 else None
                theirs = zip(others, (_targets(ctx, chunk, judge) for judge in committee), strict=True)
                images = _recovered(
                    ctx, dataset, forward, chunk, len(chunks), targets_of(chunk), work, tuple(theirs), verifier
                )
            place(chunk, images)
            if optimised or ctx.group.leads:
                behind.do(partial(_write_images, ctx, dataset, images, chunk.labels_B, chunk.ordinals_B))
            ctx.stop_if_asked("recover")
    if optimised:
        take_others(ctx, chunks, mine, partial(_chunk_path, ctx), lambda path: _finished(ctx, path, work), place)
    labels_N = torch.arange(classes).repeat_interleave(config.ipc)
    weights_N = points.weights_CK.flatten().float() if points else torch.full((len(labels_N),), 1 / config.ipc)
    synthetic = SyntheticSet(images_NCHW, labels_N, weights_N)
    if not ctx.group.leads:
        return synthetic, {}
    sheet = contact_sheet(images_NCHW, labels_N, dataset.class_names)
    write_whole(ctx.run.report / "contact_sheet.png", png_bytes(sheet))
    judged = {}
    if verifier is not None:
        judged["verifier"] = verifier.judge(dataset, chunks, lambda chunk: images_NCHW[positions(chunk)])
        ctx.log(
            "verifier {}: top-1 {top1:.1f} %; random real photographs: {random_real_top1:.1f} %, validation images: "
            "{val_top1:.1f} %".format(verifier.name, **judged["verifier"])
        )
    if found is None:
        return synthetic, judged
    own, real = against_real(
        ctx,
        network,
        dataset,
        chunks,
        lambda chunk: images_NCHW[positions(chunk)],
        targets_of,
        make_coefficients(config.recover),
    )
    ctx.log(
        f"images: teacher top-1 {own.teacher_top1:.1f} %, feature {own.feature:.4g}, BN {own.bn:.4g}; "
        f"random real photographs: {real.teacher_top1:.1f} %, {real.feature:.4g}, {real.bn:.4g}"
    )
    return synthetic, {"images": own.facts(), "random_real": real.facts(), **judged}


def _targets(ctx: Context, chunk: Chunk, judge: Judge) -> Targets:
    """What one teacher wants of a chunk."""
    return make_targets(
        chunk,
        ctx.config,
        judge.network,
        judge.found,
        judge.points.points_CKD if judge.points else None,
        judge.points.weights_CK if judge.points else None,
        ctx.device,
    )


def _recovered(
    ctx: Context,
    dataset: Dataset,
    forward: Forward,
    chunk: Chunk,
    chunks: int,
    targets: Targets,
    work: str,
    others: tuple[tuple[Forward, Targets], ...],
    verifier: Verifier | None,
) -> torch.Tensor:
    """The chunk's images, from its finished file or by optimisation."""
    done = _chunk_path(ctx, chunk)
    images = _finished(ctx, done, work)
    if images is None:
        images = recover_chunk(ctx, dataset, forward, chunk, chunks, targets, work, others, verifier)
        write_whole(done, pack({"images": images}, {"chunk": chunk.index, "work": work}))
    for slot in ctx.run.checkpoints.glob(f"recover-{chunk.index:06d}.*"):
        slot.unlink()
    return images


def _chunk_path(ctx: Context, chunk: Chunk) -> Path:
    return ctx.run.checkpoints / f"chunk-{chunk.index:06d}.ckpt"


def _finished(ctx: Context, path: Path, work: str) -> torch.Tensor | None:
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


def _write_images(
    ctx: Context, dataset: Dataset, images_BCHW: torch.Tensor, labels_B: torch.Tensor, ordinals_B: torch.Tensor
) -> None:
    """Write what is not there yet: a resumed run finds most of them. Raises OSError."""
    classes = len(dataset.class_names)
    for image, label, ordinal in zip(images_BCHW, labels_B.tolist(), ordinals_B.tolist(), strict=True):
        path = image_path(ctx.run.images, dataset.class_ids[label], label, ordinal, classes, ctx.config.ipc)
        data = png_bytes(to_pillow(image))
        if not (path.is_file() and path.read_bytes() == data):
            path.parent.mkdir(exist_ok=True)
            write_whole(path, data)
