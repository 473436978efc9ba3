"""What is known of the real images before anything is synthesised: the teacher, its statistics, the barycenters.

Each is taken from the run directory (a resumed run) or the cache (an earlier run with the same determinants), or made
here, with checkpoints from which a broken-off stage goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine import barycenter, events, models, statistics
from engine.artifacts import Cache, key_of
from engine.checkpoints import Slots
from engine.context import Context, staged
from engine.data import Dataset
from engine.distributed.stages import clear_shards, read_together, recall_together, solve_together, survey
from engine.errors import NonFiniteLoss, OutOfMemory, Stopped
from engine.evaluate import evaluate
from engine.judges import Points
from engine.memory import fits, forward_batch_that_fits
from engine.models.checkpoint import load_teacher, save_safetensors
from engine.models.instrument import classifier_layer
from engine.models.placement import on_device
from engine.outcome import Outcome
from engine.randomness import derive_seed
from engine.reuse import FeatureFile, remember
from engine.squeeze import squeeze

FINITE_ROWS = 65536


def teacher(ctx: Context, cache: Cache, dataset: Dataset, network: nn.Module, outcome: Outcome) -> nn.Module:
    """The teacher in eval mode on the device: trained, or loaded. Raises EngineError subclasses."""
    config = ctx.config
    with staged(ctx, outcome.seconds, "squeeze") as mark_cached:
        key = key_of(
            kind="teacher",
            data=dataset.fingerprint,
            teacher=config.teacher.determinants(exclude={"committee"}),
            squeeze=config.squeeze.determinants(exclude={"compile"}),
            seed=config.seed,
            threads=config.run.threads,
            device=ctx.device.type,
            **({"bf16": True} if ctx.bf16 else {}),
        )
        alike, key = key, _key_of_division(ctx, key)
        if config.teacher.source == "train":
            loaded, cached = recall_together(ctx, cache, "teacher", key, alike)
            if loaded is None:
                models.initialise(network, config.seed, "teacher")
                on_device(network, ctx.device)
                facts = squeeze(ctx, dataset, network, key)
                if ctx.group.leads:
                    remember(ctx, cache, "teacher", key, dict(network.state_dict()), top1=facts["top1"], alike=alike)
                outcome.teacher_top1 = facts["top1"]
            else:
                network.load_state_dict(loaded.tensors)
                outcome.teacher_top1 = loaded.state["top1"]
                if cached:
                    mark_cached()
        else:
            network = load_teacher(config, len(dataset.class_names), ctx.device)
        on_device(network, ctx.device).eval().requires_grad_(False)
        outcome.teacher_sha256 = _hash_of(network)
        ctx.group.must_agree("teacher", outcome.teacher_sha256, "a teacher")
        if not ctx.group.leads:
            return network
        if outcome.teacher_top1 is None:
            outcome.teacher_top1 = evaluate(ctx, "squeeze", network, dataset.val, dataset.mean, dataset.std)[0]
        save_safetensors(network, ctx.run.checkpoints / "teacher.safetensors", {"top1": str(outcome.teacher_top1)})
        ctx.emit(events.Metrics(stage="teacher", epoch=0, epochs=0, top1=outcome.teacher_top1))
        ctx.log(f"teacher {config.teacher.arch}: top-1 {outcome.teacher_top1:.2f} % on the validation images")
    return network


def _key_of_division(ctx: Context, key: str) -> str:
    """The key of a teacher whose batches were divided among ranks, each with BatchNorm of its own part."""
    if ctx.group.count == 1:
        return key
    return key_of(alike=key, ranks=ctx.group.count, sync_bn=ctx.config.run.sync_bn)


def _hash_of(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def real_statistics(
    ctx: Context, cache: Cache, dataset: Dataset, network: nn.Module, outcome: Outcome
) -> tuple[statistics.Statistics, str]:
    """Statistics and the hash of their features. Raises Stopped, OutOfMemory, NonFiniteLoss, DataError."""
    with staged(ctx, outcome.seconds, "statistics") as mark_cached:
        key = key_of(
            kind="statistics",
            layout=2,
            data=dataset.fingerprint,
            teacher=outcome.teacher_sha256,
            options=ctx.statistics_determinants(),
        )
        features = FeatureFile(ctx, cache, key)
        loaded, cached = recall_together(ctx, cache, "statistics", key)
        if loaded is not None:
            sha256 = str(loaded.state["features"])
            features_ND = features.open(sha256) if ctx.group.leads else None
            if ctx.group.agreed("features", lambda: features_ND is not None):
                if cached:
                    mark_cached()
                return statistics.from_tensors(loaded.tensors, _mapped(features, features_ND)), sha256
        slots = Slots(ctx.run.checkpoints, "statistics", f"{key} in shards")
        found = _survey(ctx, dataset, network, features, slots, key)
        if found is not None:
            sha256 = features.commit()
            remember(ctx, cache, "statistics", key, statistics.to_tensors(found), features=sha256)
            slots.clear()
            clear_shards(ctx, "statistics", key)
        ctx.group.meet("statistics")
        if found is None:
            loaded = read_together(ctx, "statistics", key)
            found, sha256 = statistics.from_tensors(loaded.tensors, features.map()), str(loaded.state["features"])
        return found, sha256


def _mapped(features: FeatureFile, features_ND: torch.Tensor | None) -> torch.Tensor:
    return features.map() if features_ND is None else features_ND


def _survey(
    ctx: Context, dataset: Dataset, network: nn.Module, features: FeatureFile, slots: Slots, key: str
) -> statistics.Statistics | None:
    """The pass over the real images; of a group the first rank gets what all found.

    Each checkpoint closes a stretch of batches, whose features it holds the hash of.
    """
    options, labels_N = ctx.config.statistics, dataset.train.labels_N
    averaged = options.variance == "batch-averaged"
    batches = statistics.passes(labels_N, options.variance, options.batch_size, options.loading_batch)

    def whole(rows: slice, work: Callable[[slice], None]) -> None:
        if not fits(partial(work, rows)):
            fitting = forward_batch_that_fits(network, rows.stop, dataset.resolution, ctx.device)
            raise OutOfMemory(
                f"a loading batch of {rows.stop} images at {dataset.resolution} px does not fit the device's memory",
                f"set statistics.loading_batch = {fitting}, which fits but averages other variances, or "
                "statistics.variance = 'exact', which is cut to what fits",
            )

    cut = whole if averaged else partial(ctx.cut, "statistics")
    if ctx.group.count > 1:
        together = survey(ctx, dataset, network, batches, features, key, cut)
        if together is not None:
            _require_finite(together)
        return together
    images_done = np.cumsum([len(batch) for batch in batches]).tolist()
    sums = statistics.Sums(network, len(dataset.class_names), ctx.device, averaged)
    shape = (len(labels_N), classifier_layer(network).in_features)
    shards: list[tuple[int, str]] = []
    kept = None
    saved = ctx.load(slots, lambda state: f"statistics, batch {state['shards'][-1][0]} of {len(batches)}")
    if saved is not None:
        shards = [(int(end), str(sha256)) for end, sha256 in saved.state["shards"]]
        kept = features.reopen(*shape)
        if kept is not None and _shards_are_whole(kept, batches, shards):
            sums.restore(saved.tensors)
        else:
            ctx.warn("the features of the broken-off pass are damaged; statistics begin again")
            shards, kept = [], None

    def after_batch(done: int, sums: statistics.Sums, landed: Callable[[], torch.Tensor]) -> None:
        ctx.progress("statistics", images_done[done - 1], len(labels_N), "images")
        stop = ctx.interrupted()
        if stop or ctx.checkpoint_due():
            begin, features_ND = shards[-1][0] if shards else 0, landed()
            features.flush()
            shards.append((done, _shard_sha256(features_ND, batches[begin:done])))
            ctx.save(slots, f"statistics, batch {done} of {len(batches)}", sums.tensors(), shards=shards)
        if stop:
            raise Stopped("stopped in statistics")

    found = statistics.collect(
        network,
        labels_N,
        batches,
        statistics.loader(dataset),
        len(dataset.class_names),
        ctx.device,
        averaged,
        after_batch,
        features.allocate if kept is None else lambda *_: kept,
        shards[-1][0] if shards else 0,
        sums,
        cut,
        ctx.statistics_bf16,
    )
    _require_finite(found)
    return found


def _shard_sha256(features_ND: torch.Tensor, batches: list[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(features_ND[batch].numpy().tobytes())
    return digest.hexdigest()


def _shards_are_whole(features_ND: torch.Tensor, batches: list[torch.Tensor], shards: list[tuple[int, str]]) -> bool:
    begins = [0, *(end for end, _ in shards)]
    return all(
        _shard_sha256(features_ND, batches[begin:end]) == sha256
        for begin, (end, sha256) in zip(begins, shards, strict=False)
    )


def _require_finite(found: statistics.Statistics) -> None:
    """Raises NonFiniteLoss for a teacher whose activations overflow."""
    tensors = [tensor for layer in found.layers for tensor in (layer.mean_CF, layer.var_CF)]
    for tensor in [*tensors, *found.features_ND.split(FINITE_ROWS)]:
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteLoss(
                "the teacher's activations on the real images are NaN or infinite",
                "take another teacher, or train it with a lower squeeze.lr",
            )


def barycenters(
    ctx: Context,
    cache: Cache,
    dataset: Dataset,
    found: statistics.Statistics,
    features_sha256: str,
    outcome: Outcome,
) -> Points | None:
    """Barycenters of all classes; None where none are wanted. Raises Stopped."""
    options = ctx.config.barycenter
    if options.weights == "none":
        return None
    classes = len(dataset.class_names)
    with staged(ctx, outcome.seconds, "barycenter") as mark_cached:
        key = key_of(
            kind="barycenter",
            features=features_sha256,
            labels=hashlib.sha256(found.labels_N.numpy().tobytes()).hexdigest(),
            options=options.model_dump(mode="json"),
            ipc=ctx.config.ipc,
            seed=ctx.config.seed,
        )
        loaded, cached = recall_together(ctx, cache, "barycenter", key)
        if loaded is None:
            tensors = _solve_all(ctx, cache, found, classes, key)
        else:
            tensors = loaded.tensors
            if cached:
                mark_cached()
        outcome.w2sq_C = tensors["w2sq_C"].tolist()
        ctx.log(f"barycenters: mean W2² {float(tensors['w2sq_C'].mean()):.6g} over {classes} classes")
        return Points(tensors["points_CKD"], tensors["weights_CK"], tensors["w2sq_C"])


def _solve_all(
    ctx: Context, cache: Cache, found: statistics.Statistics, classes: int, key: str
) -> dict[str, torch.Tensor]:
    """Solve and remember the barycenters of all classes, with the other ranks where there are any."""
    if ctx.group.count == 1:
        slots = Slots(ctx.run.checkpoints, "barycenter", key)
        solved: dict[str, torch.Tensor] | None = _solve(
            ctx, found, range(classes), slots, lambda done: ctx.progress("barycenter", done, classes, "classes")
        )
    else:
        costs_C = (torch.bincount(found.labels_N, minlength=classes) * ctx.config.ipc).tolist()

        def part(labels: range, name: str, report: Callable[[int], None]) -> dict[str, torch.Tensor]:
            slots = Slots(ctx.run.checkpoints, f"{name}.part", key)
            tensors = _solve(ctx, found, labels, slots, report)
            slots.clear()
            return tensors

        solved = solve_together(ctx, key, costs_C, part)
    if solved is not None:
        remember(ctx, cache, "barycenter", key, solved)
        Slots(ctx.run.checkpoints, "barycenter", key).clear()
        clear_shards(ctx, "barycenter", key)
    ctx.group.meet("barycenter")
    return read_together(ctx, "barycenter", key).tensors if solved is None else solved


def _solve(
    ctx: Context, found: statistics.Statistics, labels: range, slots: Slots, report: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    """Barycenters of ``labels``, class after class; each checkpoint holds those of all so far."""
    options, classes = ctx.config.barycenter, len(labels)
    saved = ctx.load(slots, lambda state: f"barycenter, class {state['classes']} of {classes}")
    solved = [] if saved is None else _unpacked(saved.tensors)

    def after_class(solved: list[barycenter.Barycenter]) -> None:
        report(len(solved))
        stop = ctx.interrupted()
        if stop or ctx.checkpoint_due():
            where = f"barycenter, class {len(solved)} of {classes}"
            ctx.save(slots, where, _packed(solved), classes=len(solved))
        if stop:
            raise Stopped("stopped in barycenter")

    barycenter.solve_all(
        solved,
        [partial(_class_features, found, label) for label in labels],
        ctx.config.ipc,
        options.weights,
        options.iterations,
        options.tolerance,
        options.restarts,
        [derive_seed(ctx.config.seed, "barycenter", label) % 2**32 for label in labels],
        ctx.config.run.threads,
        after_class,
    )
    return _packed(solved)


def _packed(solved: list[barycenter.Barycenter]) -> dict[str, torch.Tensor]:
    return {
        "points_CKD": torch.from_numpy(np.stack([one.points_KD for one in solved])),
        "weights_CK": torch.from_numpy(np.stack([one.weights_K for one in solved])),
        "w2sq_C": torch.tensor([one.w2sq for one in solved], dtype=torch.float64),
    }


def _unpacked(tensors: dict[str, torch.Tensor]) -> list[barycenter.Barycenter]:
    rows = zip(tensors["points_CKD"].numpy(), tensors["weights_CK"].numpy(), tensors["w2sq_C"].tolist(), strict=True)
    return [barycenter.Barycenter(points_KD, weights_K, w2sq) for points_KD, weights_K, w2sq in rows]


def _class_features(found: statistics.Statistics, label: int) -> npt.NDArray[np.float64]:
    return found.features_of(label).numpy().astype(np.float64)
