"""Which stages run, in what order, with which artifacts.

Each stage function takes what it needs and returns plain data; this module decides whether its output is already
in the run directory (a resumed run), in the cache (an earlier run with the same determinants), or must be made.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from engine import barycenter, events, models, statistics
from engine.artifacts import Cache, key_of
from engine.checkpoints import Loaded, pack, read, unpack
from engine.config import STAGES
from engine.context import Context
from engine.data import Dataset, load_dataset
from engine.errors import RunFailure, Stopped
from engine.evaluate import evaluate
from engine.models.checkpoint import load_teacher, save_safetensors
from engine.models.instrument import Probe, bn_layers
from engine.pictures import contact_sheet, image_path, png_bytes, to_pillow
from engine.randomness import derive_seed
from engine.recover import make_targets, plan_chunks, recover_chunk
from engine.relabel import relabel
from engine.report import write_dataset_card, write_report
from engine.rundir import write_whole
from engine.softlabels import SyntheticSet, read_soft_labels
from engine.squeeze import squeeze
from engine.train import StudentResult, train_student


@dataclass
class Outcome:
    """What the stages found out, for the report."""

    seconds: dict[str, float] = field(default_factory=dict)
    teacher_top1: float | None = None
    teacher_sha256: str = ""
    w2sq_C: list[float] = field(default_factory=list)
    student: StudentResult | None = None
    images: int = 0


@dataclass(frozen=True)
class Points:
    """Barycenters of all classes: points (C, K, D), weights (C, K), W2² (C,); float64."""

    points_CKD: torch.Tensor
    weights_CK: torch.Tensor
    w2sq_C: torch.Tensor


def execute(ctx: Context) -> Outcome:
    """Run all stages up to ``run.until``. Raises EngineError subclasses."""
    last = STAGES.index(ctx.config.run.until)
    wanted = STAGES[: last + 1]
    outcome = Outcome()
    dataset = _load(ctx)
    network = models.build(
        ctx.config.teacher.arch,
        len(dataset.class_names),
        dataset.resolution,
        ctx.config.teacher.stem,
        ctx.config.teacher.width,
    )
    models.require_batchnorm(network)
    chunks = plan_chunks(
        len(dataset.class_names), ctx.config.ipc, ctx.config.recover.batch_size, ctx.config.recover.chunk
    )
    ctx.emit(
        events.Hello(
            stages=list(wanted),
            classes=len(dataset.class_names),
            class_names=list(dataset.class_names),
            ipc=ctx.config.ipc,
            chunks=len(chunks),
            iterations=ctx.config.recover.iterations,
            layers=[name for name, _ in bn_layers(network)],
            device=_device_name(ctx.device),
            pid=os.getpid(),
            resumed=any(ctx.run.checkpoints.iterdir()),
        )
    )
    cache = Cache(ctx.config.run.use_cache)
    network = _teacher(ctx, cache, dataset, network, outcome)
    if "statistics" in wanted:
        found = _statistics(ctx, cache, dataset, network, outcome)
    if "barycenter" in wanted:
        points = _barycenters(ctx, cache, dataset, found, outcome)
    if "recover" in wanted:
        synthetic = _recover(ctx, dataset, network, found, points, outcome)
    if "relabel" in wanted:
        _relabel(ctx, dataset, network, synthetic, outcome)
    if "train" in wanted:
        _train(ctx, dataset, network, synthetic, outcome)
    write_report(ctx, dataset, outcome)
    return outcome


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} threads"


@contextmanager
def _stage(ctx: Context, outcome: Outcome, name: str) -> Iterator[Callable[[], None]]:
    """Announce a stage and its seconds; the yielded function marks it as taken from the cache."""
    cached = False

    def mark() -> None:
        nonlocal cached
        cached = True

    ctx.emit(events.Stage(stage=name, what="begin"))
    started = time.monotonic()
    yield mark
    outcome.seconds[name] = outcome.seconds.get(name, 0.0) + time.monotonic() - started
    ctx.emit(events.Stage(stage=name, what="end", seconds=round(outcome.seconds[name], 3), cached=cached))


def _load(ctx: Context) -> Dataset:
    """Decode the data set, reporting progress under the first stage's name."""
    dataset = load_dataset(
        ctx.config.data,
        ctx.config.seed,
        ctx.device,
        lambda done, total: ctx.progress("data", done, total, "images"),
    )
    for message in dataset.warnings:
        ctx.log(message, "warning")
    for name in dataset.skipped:
        ctx.log(f"left out unreadable image {name}", "warning")
    return dataset


def _recall(ctx: Context, cache: Cache, kind: str, key: str) -> tuple[Loaded | None, bool]:
    """An output from the run directory or the cache, and whether it came from the cache; damaged ones are said."""
    own = ctx.run.checkpoints / f"{kind}.ckpt"
    for path in (own, cache.find(kind, key)):
        if path is None or not path.is_file():
            continue
        try:
            loaded = read(path)
        except (OSError, ValueError) as error:
            ctx.log(f"{path.name} is damaged ({error}) and is made again", "warning")
            continue
        if loaded.state.get("key") == key:
            if path != own:
                write_whole(own, pack(loaded.tensors, loaded.state))
            return loaded, path != own
    return None, False


def _remember(ctx: Context, cache: Cache, kind: str, key: str, tensors: dict[str, torch.Tensor], **state: Any) -> None:
    data = pack(tensors, {**state, "key": key})
    write_whole(ctx.run.checkpoints / f"{kind}.ckpt", data)
    try:
        cache.keep(kind, key, data)
    except OSError as error:
        ctx.log(f"{kind} is not cached for later runs: {error}", "warning")


def _teacher(ctx: Context, cache: Cache, dataset: Dataset, network: nn.Module, outcome: Outcome) -> nn.Module:
    config = ctx.config
    with _stage(ctx, outcome, "squeeze") as mark_cached:
        key = key_of(
            kind="teacher",
            data=dataset.fingerprint,
            teacher=config.teacher.model_dump(mode="json"),
            squeeze=config.squeeze.model_dump(mode="json"),
            seed=config.seed,
            threads=config.run.threads,
            device=ctx.device.type,
        )
        if config.teacher.source == "train":
            loaded, cached = _recall(ctx, cache, "teacher", key)
            if loaded is None:
                models.initialise(network, config.seed, "teacher")
                network.to(ctx.device)
                facts = squeeze(ctx, dataset, network)
                _remember(ctx, cache, "teacher", key, dict(network.state_dict()), top1=facts["top1"])
                outcome.teacher_top1 = facts["top1"]
            else:
                network.load_state_dict(loaded.tensors)
                outcome.teacher_top1 = loaded.state["top1"]
                if cached:
                    mark_cached()
        else:
            network = load_teacher(config, len(dataset.class_names), ctx.device)
        network.to(ctx.device).eval().requires_grad_(False)
        if outcome.teacher_top1 is None:
            outcome.teacher_top1 = evaluate(
                network, dataset.val, dataset.mean, dataset.std, config.train.eval_batch, ctx.device
            )[0]
        outcome.teacher_sha256 = _hash_of(network)
        save_safetensors(network, ctx.run.checkpoints / "teacher.safetensors", {"top1": str(outcome.teacher_top1)})
        ctx.log(f"teacher {config.teacher.arch}: top-1 {outcome.teacher_top1:.2f} % on the validation images")
    return network


def _hash_of(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _statistics(
    ctx: Context, cache: Cache, dataset: Dataset, network: nn.Module, outcome: Outcome
) -> statistics.Statistics:
    options = ctx.config.statistics
    with _stage(ctx, outcome, "statistics") as mark_cached:
        key = key_of(
            kind="statistics",
            data=dataset.fingerprint,
            teacher=outcome.teacher_sha256,
            options=options.model_dump(mode="json"),
        )
        loaded, cached = _recall(ctx, cache, "statistics", key)
        if loaded is not None:
            if cached:
                mark_cached()
            return statistics.from_tensors(loaded.tensors)

        def after_batch(done: int) -> None:
            ctx.progress("statistics", done, len(dataset.train), "images")
            if ctx.interrupted():
                raise Stopped("stopped in statistics")

        found = statistics.of_dataset(
            network,
            dataset,
            ctx.device,
            options.variance,
            options.batch_size,
            options.loading_batch,
            after_batch,
        )
        _remember(ctx, cache, "statistics", key, statistics.to_tensors(found))
        return found


def _barycenters(
    ctx: Context, cache: Cache, dataset: Dataset, found: statistics.Statistics, outcome: Outcome
) -> Points | None:
    options = ctx.config.barycenter
    if options.weights == "none":
        return None
    classes = len(dataset.class_names)
    with _stage(ctx, outcome, "barycenter") as mark_cached:
        key = key_of(
            kind="barycenter",
            features=hashlib.sha256(found.features_ND.numpy().tobytes()).hexdigest(),
            labels=hashlib.sha256(found.labels_N.numpy().tobytes()).hexdigest(),
            options=options.model_dump(mode="json"),
            ipc=ctx.config.ipc,
            seed=ctx.config.seed,
        )
        loaded, cached = _recall(ctx, cache, "barycenter", key)
        if loaded is None:

            def after_class(done: int) -> None:
                ctx.progress("barycenter", done, classes, "classes")
                if ctx.interrupted():
                    raise Stopped("stopped in barycenter")

            solved = barycenter.solve_all(
                [found.features_of(label).numpy().astype(np.float64) for label in range(classes)],
                ctx.config.ipc,
                options.weights,
                options.iterations,
                options.tolerance,
                options.restarts,
                [derive_seed(ctx.config.seed, "barycenter", label) % 2**32 for label in range(classes)],
                ctx.config.run.threads,
                after_class,
            )
            tensors = {
                "points_CKD": torch.from_numpy(np.stack([one.points_KD for one in solved])),
                "weights_CK": torch.from_numpy(np.stack([one.weights_K for one in solved])),
                "w2sq_C": torch.tensor([one.w2sq for one in solved], dtype=torch.float64),
            }
            _remember(ctx, cache, "barycenter", key, tensors)
        else:
            tensors = loaded.tensors
            if cached:
                mark_cached()
        outcome.w2sq_C = tensors["w2sq_C"].tolist()
        ctx.log(f"barycenters: mean W2² {float(tensors['w2sq_C'].mean()):.6g} over {classes} classes")
        return Points(tensors["points_CKD"], tensors["weights_CK"], tensors["w2sq_C"])


def _recover(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    found: statistics.Statistics,
    points: Points | None,
    outcome: Outcome,
) -> SyntheticSet:
    config = ctx.config
    classes = len(dataset.class_names)
    chunks = plan_chunks(classes, config.ipc, config.recover.batch_size, config.recover.chunk)
    size = dataset.resolution
    images_NCHW = torch.zeros(classes * config.ipc, 3, size, size, dtype=torch.uint8)
    with _stage(ctx, outcome, "recover"):
        probe = Probe(network)
        try:
            for chunk in chunks:
                done = ctx.run.checkpoints / f"chunk-{chunk.index:06d}.ckpt"
                images = _finished_chunk(ctx, done)
                if images is None:
                    targets = make_targets(
                        chunk,
                        config,
                        network,
                        found,
                        points.points_CKD if points else None,
                        points.weights_CK if points else None,
                        ctx.device,
                    )
                    images = recover_chunk(ctx, dataset, probe, chunk, len(chunks), targets)
                    write_whole(done, pack({"images": images}, {"chunk": chunk.index}))
                    for slot in ctx.run.checkpoints.glob(f"recover-{chunk.index:06d}.*"):
                        slot.unlink()
                images_NCHW[chunk.labels_B * config.ipc + chunk.ordinals_B] = images
                _write_images(ctx, dataset, images, chunk.labels_B, chunk.ordinals_B)
        finally:
            probe.close()
        labels_N = torch.arange(classes).repeat_interleave(config.ipc)
        weights_N = points.weights_CK.flatten().float() if points else torch.full((len(labels_N),), 1 / config.ipc)
        sheet = contact_sheet(images_NCHW, labels_N, dataset.class_names)
        write_whole(ctx.run.report / "contact_sheet.png", png_bytes(sheet))
        outcome.images = len(labels_N)
    return SyntheticSet(images_NCHW, labels_N, weights_N)


def _finished_chunk(ctx: Context, path: Any) -> torch.Tensor | None:
    try:
        return unpack(path.read_bytes()).tensors["images"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        ctx.log(f"{path.name} is damaged ({error}) and its chunk is recovered again", "warning")
        return None


def _write_images(
    ctx: Context,
    dataset: Dataset,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    ordinals_B: torch.Tensor,
) -> None:
    classes = len(dataset.class_names)
    for image, label, ordinal in zip(images_BCHW, labels_B.tolist(), ordinals_B.tolist(), strict=True):
        path = image_path(ctx.run.images, dataset.class_ids[label], label, ordinal, classes, ctx.config.ipc)
        path.parent.mkdir(exist_ok=True)
        try:
            write_whole(path, png_bytes(to_pillow(image)))
        except OSError as error:
            raise RunFailure(f"cannot write image {path}: {error.strerror}", "free some space, then resume") from None


def _relabel(ctx: Context, dataset: Dataset, network: nn.Module, synthetic: SyntheticSet, outcome: Outcome) -> None:
    if ctx.config.relabel.storage == "stored" and ctx.config.train.labels == "soft":
        with _stage(ctx, outcome, "relabel"):
            relabel(ctx, synthetic, network, dataset.mean, dataset.std)


def _train(ctx: Context, dataset: Dataset, network: nn.Module, synthetic: SyntheticSet, outcome: Outcome) -> None:
    config = ctx.config
    with _stage(ctx, outcome, "train"):
        arch = config.train.arch or config.teacher.arch
        stem = config.teacher.stem if arch == config.teacher.arch else "auto"
        student = models.build(arch, len(dataset.class_names), dataset.resolution, stem, config.teacher.width)
        models.initialise(student, config.seed, "student")
        student.to(ctx.device)
        stored = config.relabel.storage == "stored"
        outcome.student = train_student(
            ctx,
            synthetic,
            student,
            None if stored else network,
            dataset.val,
            dataset.mean,
            dataset.std,
            (lambda epoch: read_soft_labels(ctx.run, epoch)) if stored else None,
        )
        facts = {"arch": arch, "top1": str(outcome.student.top1)}
        save_safetensors(student, ctx.run.student / "student.safetensors", facts)
        write_dataset_card(ctx, dataset, outcome)
