"""Which stages run, in what order, with which artifacts.

Each stage function takes what it needs and returns plain data; this module decides whether its output is already
in the run directory (a resumed run), in the cache (an earlier run with the same determinants), or must be made.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine import barycenter, events, models, statistics
from engine.artifacts import Cache, key_of
from engine.config import STAGES
from engine.context import Context, staged
from engine.data import Dataset, load_dataset
from engine.data.given import class_files
from engine.effects import without_effect
from engine.errors import Stopped
from engine.evaluate import evaluate
from engine.models.checkpoint import load_teacher, save_safetensors
from engine.models.instrument import bn_layers, classifier_layer
from engine.randomness import derive_seed
from engine.recover import Chunk, plan_chunks
from engine.relabel import relabel
from engine.report import write_dataset_card, write_report
from engine.reuse import FeatureFile, recall, remember
from engine.softlabels import SyntheticSet, read_soft_labels
from engine.space import needed_bytes, require_space
from engine.squeeze import squeeze
from engine.synthesis import Points, synthesise
from engine.train import StudentResult, train_student


@dataclass
class Outcome:
    """What the stages found out, for the report."""

    seconds: dict[str, float] = field(default_factory=dict)
    teacher_top1: float | None = None
    teacher_sha256: str = ""
    w2sq_C: list[float] = field(default_factory=list)
    student: StudentResult | None = None
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    images: int = 0


def execute(ctx: Context) -> Outcome:
    """Run all stages up to ``run.until``. Raises EngineError subclasses."""
    last = STAGES.index(ctx.config.run.until)
    wanted = STAGES[: last + 1]
    outcome = Outcome()
    for sentence in without_effect(ctx.config):
        ctx.log(sentence, "warning")
    dataset = _load(ctx)
    classes = len(dataset.class_names)
    network = models.build_teacher(ctx.config, classes)
    student = models.build_student(ctx.config, classes)
    if ctx.config.recover.objective == "given":
        class_files(ctx.config.recover.path, dataset.class_ids, ctx.config.ipc)
    features = classifier_layer(network).in_features
    require_space(ctx.run, needed_bytes(ctx.config, classes, len(dataset.train), features, network))
    chunks = plan_chunks(classes, ctx.config.ipc, ctx.config.recover.batch_size, ctx.config.recover.chunk)
    ctx.emit(
        events.Hello(
            stages=list(wanted),
            classes=classes,
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
        found, features_sha256 = _statistics(ctx, cache, dataset, network, outcome)
    if "barycenter" in wanted:
        points = _barycenters(ctx, cache, dataset, found, features_sha256, outcome)
    if "recover" in wanted:
        synthetic = _recover(ctx, dataset, network, chunks, found, points, outcome)
    if "relabel" in wanted:
        _relabel(ctx, dataset, network, synthetic, outcome)
    if "train" in wanted:
        _train(ctx, dataset, network, student, synthetic, outcome)
    write_report(ctx, dataset, outcome)
    return outcome


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} threads"


def _load(ctx: Context) -> Dataset:
    """Decode the data set, reporting progress under the first stage's name."""
    dataset = load_dataset(
        ctx.config.data,
        ctx.config.seed,
        ctx.device,
        lambda done, total: ctx.progress("data", done, total, "images"),
        lambda message: ctx.log(message, "warning"),
    )
    for message in dataset.warnings:
        ctx.log(message, "warning")
    for name in dataset.skipped:
        ctx.log(f"left out unreadable image {name}", "warning")
    return dataset


def _teacher(ctx: Context, cache: Cache, dataset: Dataset, network: nn.Module, outcome: Outcome) -> nn.Module:
    config = ctx.config
    with staged(ctx, outcome.seconds, "squeeze") as mark_cached:
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
            loaded, cached = recall(ctx, cache, "teacher", key)
            if loaded is None:
                models.initialise(network, config.seed, "teacher")
                network.to(ctx.device)
                facts = squeeze(ctx, dataset, network)
                remember(ctx, cache, "teacher", key, dict(network.state_dict()), top1=facts["top1"])
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
        ctx.emit(events.Metrics(stage="teacher", epoch=0, epochs=0, top1=outcome.teacher_top1))
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
) -> tuple[statistics.Statistics, str]:
    """Statistics and the hash of their features."""
    options = ctx.config.statistics
    with staged(ctx, outcome.seconds, "statistics") as mark_cached:
        key = key_of(
            kind="statistics",
            layout=2,
            data=dataset.fingerprint,
            teacher=outcome.teacher_sha256,
            options=options.model_dump(mode="json"),
        )
        features = FeatureFile(ctx, cache, key)
        loaded, cached = recall(ctx, cache, "statistics", key)
        if loaded is not None:
            sha256 = str(loaded.state["features"])
            features_ND = features.open(sha256)
            if features_ND is not None:
                if cached:
                    mark_cached()
                return statistics.from_tensors(loaded.tensors, features_ND), sha256

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
            features.allocate,
        )
        sha256 = features.commit()
        remember(ctx, cache, "statistics", key, statistics.to_tensors(found), features=sha256)
        return found, sha256


def _barycenters(
    ctx: Context,
    cache: Cache,
    dataset: Dataset,
    found: statistics.Statistics,
    features_sha256: str,
    outcome: Outcome,
) -> Points | None:
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
        loaded, cached = recall(ctx, cache, "barycenter", key)
        if loaded is None:

            def after_class(done: int) -> None:
                ctx.progress("barycenter", done, classes, "classes")
                if ctx.interrupted():
                    raise Stopped("stopped in barycenter")

            solved = barycenter.solve_all(
                [partial(_class_features, found, label) for label in range(classes)],
                int(torch.bincount(found.labels_N).max()),
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
            remember(ctx, cache, "barycenter", key, tensors)
        else:
            tensors = loaded.tensors
            if cached:
                mark_cached()
        outcome.w2sq_C = tensors["w2sq_C"].tolist()
        ctx.log(f"barycenters: mean W2² {float(tensors['w2sq_C'].mean()):.6g} over {classes} classes")
        return Points(tensors["points_CKD"], tensors["weights_CK"], tensors["w2sq_C"])


def _class_features(found: statistics.Statistics, label: int) -> npt.NDArray[np.float64]:
    return found.features_of(label).numpy().astype(np.float64)


def _recover(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    chunks: list[Chunk],
    found: statistics.Statistics,
    points: Points | None,
    outcome: Outcome,
) -> SyntheticSet:
    with staged(ctx, outcome.seconds, "recover"):
        synthetic, outcome.quality = synthesise(ctx, dataset, network, chunks, found, points)
        outcome.images = len(synthetic.labels_N)
    return synthetic


def _relabel(ctx: Context, dataset: Dataset, network: nn.Module, synthetic: SyntheticSet, outcome: Outcome) -> None:
    if ctx.config.relabel.storage == "stored" and ctx.config.train.labels == "soft":
        with staged(ctx, outcome.seconds, "relabel"):
            relabel(ctx, synthetic, network, dataset.mean, dataset.std)


def _train(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    student: nn.Module,
    synthetic: SyntheticSet,
    outcome: Outcome,
) -> None:
    config = ctx.config
    with staged(ctx, outcome.seconds, "train"):
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
        facts = {"arch": config.train.arch or config.teacher.arch, "top1": str(outcome.student.top1)}
        save_safetensors(student, ctx.run.student / "student.safetensors", facts)
        write_dataset_card(ctx, dataset, outcome)
