"""The recover stage as a whole: every chunk of the synthetic set, its files, and how good its images are.

A finished chunk is kept, so a resumed run goes on with the next. With ``recover.objective = "real"`` or
``"given"`` no chunk is optimised, nor with ``"start"``: the images are taken as they are and measured the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn

from engine.behind import Behind
from engine.chunk_images import Made, as_they_are, finished_images, optimised, path_of
from engine.chunks import Chunk
from engine.context import Context
from engine.data import Dataset
from engine.distributed.chunks import own_chunks, take_others
from engine.judges import Judge, Points, targets_of
from engine.pictures import contact_sheet, image_path, png_bytes, to_pillow
from engine.quality import against_real
from engine.recipe import make_coefficients
from engine.rundir import write_whole
from engine.softlabels import SyntheticSet
from engine.statistics import Statistics
from engine.verifier import Verifier


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
    judge = Judge(network, found, points)

    def positions(chunk: Chunk) -> torch.Tensor:
        return chunk.labels_B * config.ipc + chunk.ordinals_B

    def place(chunk: Chunk, images: torch.Tensor) -> None:
        images_NCHW[positions(chunk)] = images

    if config.recover.objective in ("given", "real", "start"):
        _gather(ctx, dataset, as_they_are(ctx, dataset, judge, chunks), place, ctx.group.leads)
    else:
        if found is None and not config.matches_no_class_statistics:
            raise ValueError("images that are optimised need statistics")
        path = partial(path_of, ctx)
        mine = own_chunks(ctx, chunks, path, work)
        made = optimised(ctx, dataset, (judge, *committee), chunks, mine, work, verifier)
        _gather(ctx, dataset, made, place, True)
        take_others(ctx, chunks, mine, path, lambda file: finished_images(ctx, file, work), place)
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
        lambda chunk: targets_of(ctx, chunk, judge),
        make_coefficients(config.recover),
    )
    ctx.log(
        f"images: teacher top-1 {own.teacher_top1:.1f} %, feature {own.feature:.4g}, BN {own.bn:.4g}; "
        f"random real photographs: {real.teacher_top1:.1f} %, {real.feature:.4g}, {real.bn:.4g}"
    )
    return synthetic, {"images": own.facts(), "random_real": real.facts(), **judged}


def _gather(
    ctx: Context, dataset: Dataset, made: Made, place: Callable[[Chunk, torch.Tensor], None], writes: bool
) -> None:
    """Place the images of each chunk, and write them where this process is to."""
    with Behind(ctx.device) as behind:
        for chunk, images in made:
            place(chunk, images)
            if writes:
                behind.do(partial(_write_images, ctx, dataset, images, chunk.labels_B, chunk.ordinals_B))


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
