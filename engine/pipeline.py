"""Which stages run, in what order, with which artifacts.

Each stage function takes what it needs and returns plain data; this module decides whether its output is already
in the run directory (a resumed run), in the cache (an earlier run with the same determinants), or must be made.
"""

from __future__ import annotations

import hashlib
import os

import torch
from torch import nn

from engine import events, groundwork, models
from engine.artifacts import Cache, key_of
from engine.config import STAGES
from engine.context import Context, staged
from engine.data import Dataset, load_dataset
from engine.data.given import class_files
from engine.effects import without_effect
from engine.models.checkpoint import save_safetensors
from engine.models.instrument import bn_layers, classifier_layer
from engine.outcome import Outcome
from engine.recover import Chunk, plan_chunks
from engine.relabel import relabel
from engine.report import write_dataset_card, write_report
from engine.softlabels import SyntheticSet, read_soft_labels
from engine.space import needed_bytes, require_space
from engine.statistics import Statistics
from engine.synthesis import Points, synthesise
from engine.train import train_student

#: Options of recovery that change when something is kept or shown, or how much memory is used, but no image.
WITHOUT_INFLUENCE = {"checkpoint_every", "preview_every", "micro_batch"}


def execute(ctx: Context) -> Outcome:
    """Run all stages up to ``run.until``. Raises EngineError subclasses."""
    last = STAGES.index(ctx.config.run.until)
    wanted = STAGES[: last + 1]
    outcome = Outcome()
    for sentence in without_effect(ctx.config):
        ctx.warn(sentence)
    dataset = _load(ctx)
    classes = len(dataset.class_names)
    network = models.build_teacher(ctx.config, classes)
    student = models.build_student(ctx.config, classes)
    if ctx.config.recover.objective == "given":
        class_files(ctx.config.recover.path, dataset.class_ids, ctx.config.ipc)
    features = classifier_layer(network).in_features
    ctx.needed = needed_bytes(ctx.config, classes, len(dataset.train), features, network)
    require_space(ctx.run, ctx.needed)
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
    network = groundwork.teacher(ctx, cache, dataset, network, outcome)
    if "statistics" in wanted:
        found, features_sha256 = groundwork.real_statistics(ctx, cache, dataset, network, outcome)
    if "barycenter" in wanted:
        points = groundwork.barycenters(ctx, cache, dataset, found, features_sha256, outcome)
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
    """Decode the data set, reporting progress under the first stage's name. Raises DataError, Stopped."""

    def progress(done: int, total: int) -> None:
        ctx.progress("data", done, total, "images")
        ctx.stop_if_asked("data")

    ctx.stop_if_asked("data")
    dataset = load_dataset(ctx.config.data, ctx.config.seed, ctx.device, progress, ctx.warn)
    for message in dataset.warnings:
        ctx.warn(message)
    for name in dataset.skipped:
        ctx.warn(f"left out unreadable image {name}")
    return dataset


def _recover(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    chunks: list[Chunk],
    found: Statistics,
    points: Points | None,
    outcome: Outcome,
) -> SyntheticSet:
    with staged(ctx, outcome.seconds, "recover"):
        config = ctx.config
        work = key_of(
            kind="recover",
            data=dataset.fingerprint,
            teacher=outcome.teacher_sha256,
            statistics=config.statistics.model_dump(mode="json"),
            barycenter=config.barycenter.model_dump(mode="json"),
            recover=config.recover.model_dump(mode="json", exclude=WITHOUT_INFLUENCE),
            ipc=config.ipc,
            seed=config.seed,
        )
        synthetic, outcome.quality = synthesise(ctx, dataset, network, chunks, found, points, work)
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
        work = key_of(
            kind="train",
            images=hashlib.sha256(synthetic.images_NCHW.numpy().tobytes()).hexdigest(),
            teacher=outcome.teacher_sha256,
            relabel=config.relabel.model_dump(mode="json"),
            train=config.train.model_dump(mode="json"),
            seed=config.seed,
        )
        outcome.student = train_student(
            ctx,
            synthetic,
            student,
            None if stored else network,
            dataset.val,
            dataset.mean,
            dataset.std,
            (lambda epoch: read_soft_labels(ctx.run, epoch)) if stored else None,
            work,
        )
        facts = {"arch": config.train.arch or config.teacher.arch, "top1": str(outcome.student.top1)}
        save_safetensors(student, ctx.run.student / "student.safetensors", facts)
        write_dataset_card(ctx, dataset, outcome)
