"""Statistics and barycenters of the real images by a group of ranks: each does its shards, the first merges them.

A finished shard is a file in ``checkpoints/``, so a group that was broken off goes on with what is there, whatever its
size. Shards depend on the data and the configuration alone, and are merged in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine import statistics
from engine.artifacts import Cache
from engine.checkpoints import DAMAGE, Loaded, pack, read
from engine.context import Context
from engine.data import Dataset
from engine.distributed.planning import ranges
from engine.errors import RankLost
from engine.reuse import FeatureFile, recall
from engine.rundir import write_whole

Cut = Callable[[slice, Callable[[slice], None]], None]


def recall_together(ctx: Context, cache: Cache, kind: str, key: str, alike: str = "") -> tuple[Loaded | None, bool]:
    """``recall`` for a whole group: the first rank finds an output, and the others read the file it has left."""
    loaded, cached = recall(ctx, cache, kind, key, alike) if ctx.group.leads else (None, False)
    known, cached = ctx.group.agreed(kind, lambda: ("" if loaded is None else str(loaded.state["key"]), cached))
    return (read_together(ctx, kind, known) if known and not ctx.group.leads else loaded), cached


def read_together(ctx: Context, kind: str, key: str) -> Loaded:
    """An output that the first rank has put into the run directory. Raises RankLost where it cannot be read."""
    path = ctx.group.file(ctx.run.checkpoints / f"{kind}.ckpt")
    found = _intact(path, "key", key)
    if found is None:
        raise RankLost(
            f"rank {ctx.group.number} reads another {path} than rank 0 has written",
            "put the run directory (WMDD_HOME) on a file system that all hosts share",
        )
    return found


def survey(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    batches: Sequence[torch.Tensor],
    features: FeatureFile,
    key: str,
    cut: Cut,
) -> statistics.Statistics | None:
    """The pass over the real images; the first rank gets the statistics. Raises Stopped, RankLost, OutOfMemory."""
    labels_N, classes = dataset.train.labels_N, len(dataset.class_names)
    averaged = ctx.config.statistics.variance == "batch-averaged"
    shards = statistics.shards(len(batches))
    sums = statistics.Sums(network, classes, ctx.device, averaged)
    sizes = [sum(len(batches[number]) for number in shard) for shard in shards]

    def do(index: int, report: Callable[[int], None]) -> None:
        found: list[torch.Tensor] = []

        def after(done: int, _land: object) -> None:
            report(sum(len(batch) for batch in batches[shards[index].start : done]))
            ctx.stop_if_asked("statistics")

        statistics.add_batches(
            network, labels_N, batches, shards[index], statistics.loader(dataset), sums,
            lambda _index, rows: found.append(rows), after, cut,
            ctx.statistics_bf16,
        )  # fmt: skip
        tensors = {f"sums/{name}": tensor for name, tensor in sums.rows().items()}
        sums.clear()
        _keep(paths[index], {**tensors, "features_ND": torch.cat(found)}, key)

    paths = [_shard_path(ctx, "statistics", index, key) for index in range(len(shards))]
    _share_out(ctx, "statistics", paths, key, [float(size) for size in sizes], sizes, "images", do)
    if not ctx.group.leads:
        return None
    features_ND = features.allocate(len(labels_N), _width(paths[0]))
    for shard, path in zip(shards, paths, strict=True):
        stored = _merged(path, key)
        sums.take_rows({name.removeprefix("sums/"): value for name, value in stored.items() if name != "features_ND"})
        features_ND[torch.cat([batches[number] for number in shard])] = stored["features_ND"]
    return statistics.finished(sums, features_ND, labels_N, classes)


def solve_together(
    ctx: Context,
    key: str,
    costs_C: Sequence[float],
    solve: Callable[[range, str, Callable[[int], None]], dict[str, torch.Tensor]],
) -> dict[str, torch.Tensor] | None:
    """Barycenters of all classes, solved in parts; the first rank gets them. ``solve`` takes the classes of a part,
    its name, and whom to tell how many are solved. Raises Stopped, RankLost.
    """
    parts = ranges(len(costs_C))

    def do(index: int, report: Callable[[int], None]) -> None:
        _keep(paths[index], solve(parts[index], paths[index].stem, report), key)

    paths = [_shard_path(ctx, "barycenter", index, key) for index in range(len(parts))]
    costs = [sum(costs_C[label] for label in part) for part in parts]
    _share_out(ctx, "barycenter", paths, key, costs, [len(part) for part in parts], "classes", do)
    if not ctx.group.leads:
        return None
    stored = [_merged(path, key) for path in paths]
    return {name: torch.cat([one[name] for one in stored]) for name in stored[0]}


def clear_shards(ctx: Context, kind: str, key: str) -> None:
    """Remove the files of the shards, once what they were merged into is kept."""
    for path in ctx.run.checkpoints.glob(f"{kind}-??????-{key[:8]}.ckpt"):
        path.unlink(missing_ok=True)


def _share_out(
    ctx: Context,
    stage: str,
    paths: Sequence[Path],
    key: str,
    costs: Sequence[float],
    sizes: Sequence[int],
    unit: str,
    do: Callable[[int, Callable[[int], None]], None],
) -> None:
    """Do this rank's shards of those that are not there yet, then wait for the others. ``sizes`` count ``unit``."""
    missing = (
        [index for index, path in enumerate(paths) if _intact(path, "work", key) is None] if ctx.group.leads else []
    )
    left = ctx.group.agreed(stage, lambda: missing)
    mine = [left[place] for place in ctx.group.shares([costs[index] for index in left])]
    total, done = sum(sizes[index] for index in mine), 0

    def report(within: int) -> None:
        ctx.progress(stage, done + within, total, unit)

    for index in mine:
        do(index, report)
        done += sizes[index]
        ctx.stop_if_asked(stage)
    ctx.group.meet(stage)


def _shard_path(ctx: Context, kind: str, index: int, key: str) -> Path:
    return ctx.run.checkpoints / f"{kind}-{index:06d}-{key[:8]}.ckpt"


def _keep(path: Path, tensors: dict[str, torch.Tensor], key: str) -> None:
    write_whole(path, pack(tensors, {"work": key}))


def _intact(path: Path, name: str, key: str) -> Loaded | None:
    """A file of this very work, None where there is no whole one."""
    try:
        found = read(path)
    except DAMAGE:
        return None
    return found if found.state.get(name) == key else None


def _merged(path: Path, key: str) -> dict[str, torch.Tensor]:
    found = _intact(path, "work", key)
    if found is None:
        raise RankLost(f"{path} was there and is damaged or gone", "resume the run: it is made again")
    return found.tensors


def _width(path: Path) -> int:
    size: Any = read(path).tensors["features_ND"].shape[1]
    return int(size)
