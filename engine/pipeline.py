"""Which stages run, in what order, with which artifacts.

Each stage function takes what it needs and returns plain data; this module decides whether its output is already
in the run directory (a resumed run), in the cache (an earlier run with the same determinants), or must be made.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from engine import committee, events, groundwork, models, students
from engine.artifacts import Cache, key_of
from engine.chunks import Chunk, plan_chunks
from engine.compiling import settle_compilation
from engine.config import to_toml
from engine.context import Context, staged
from engine.data import Dataset, load_dataset, require_every_class
from engine.data.given import given_files
from engine.devices import computes_in_bf16
from engine.effects import without_effect
from engine.interchange.classes import cluster_judge, order_in_doubt, teacher_votes
from engine.interchange.fkd import FkdLabels
from engine.judges import Judge, Points
from engine.models.instrument import classifier_layer
from engine.outcome import Outcome
from engine.relabel import relabel
from engine.report import write_dataset_card, write_report
from engine.rundir import write_whole
from engine.softlabels import SyntheticSet, images_sha256, read_soft_labels, real_set
from engine.space import needed_bytes, require_space
from engine.statistics import Statistics
from engine.synthesis import synthesise
from engine.train import Place, StudentResult, train_student
from engine.verifier import Verifier, load_verifier

#: Options of recovery that change when something is kept or shown, how much memory is used or how sums are ordered:
#: what was done with one value is gone on with under another.
WITHOUT_INFLUENCE = {
    "checkpoint_every", "preview_every", "micro_batch", "concurrent", "quality", "compile", "verifier", "verify_every",
}  # fmt: skip


def execute(ctx: Context) -> Outcome:
    """Run all stages up to ``run.until``. Raises EngineError subclasses."""
    settle_precision(ctx)
    wanted = ctx.config.stages
    outcome = Outcome()
    for sentence in without_effect(ctx.config):
        ctx.warn(sentence)
    dataset = _load(ctx)
    classes = len(dataset.class_names)
    network = models.build_teacher(ctx.config, classes)
    members = committee.gather(ctx, classes, outcome) if "squeeze" in wanted else []
    further = students.check(ctx.config, dataset.outputs) + committee.space_bytes(members, classes, len(dataset.train))
    labels = _given(ctx, dataset)
    looking_on = load_verifier(ctx.config, classes)
    features = classifier_layer(network).in_features
    ctx.needed = further + needed_bytes(ctx.config, classes, len(dataset.train), features, network)
    if ctx.group.leads:
        require_space(ctx.run, ctx.needed)
    ctx.group.must_agree("data", dataset.fingerprint, "a data set")
    chunks = plan_chunks(classes, ctx.config.ipc, ctx.config.recover.batch_size, ctx.config.recover.chunk)
    ctx.emit(
        events.Hello(
            stages=list(wanted),
            classes=classes,
            class_names=list(dataset.class_names),
            ipc=ctx.config.ipc,
            chunks=len(chunks),
            iterations=ctx.config.recover.iterations,
            layers=committee.layer_names(network, members),
            device=_device_name(ctx.device),
            pid=os.getpid(),
            resumed=any(ctx.run.checkpoints.iterdir()),
            ranks=ctx.group.count,
            host=socket.gethostname() if ctx.group.count > 1 else "",
        )
    )
    cache = Cache(ctx.config.run.use_cache)
    found, points, synthetic = None, None, real_set(dataset)
    if "squeeze" in wanted:
        network = groundwork.teacher(ctx, cache, dataset, network, outcome)
        committee.teach(members, cache, dataset)
        outcome.teachers_sha256 = committee.identity(outcome, members)
    if "statistics" in wanted:
        found, features_sha256 = groundwork.real_statistics(ctx, cache, dataset, network, outcome)
        theirs = committee.survey(members, cache, dataset)
    if "barycenter" in wanted and found is not None:
        points = groundwork.barycenters(ctx, cache, dataset, found, features_sha256, outcome)
        committee.solve(members, cache, dataset, theirs)
    if "recover" in wanted:
        judges = committee.judges(members)
        synthetic = _recover(ctx, dataset, network, chunks, found, points, outcome, judges, looking_on)
    network = committee.voters(network, members)
    if "relabel" in wanted:
        _relabel(ctx, dataset, network, synthetic, outcome)
    if "train" in wanted:
        _train(ctx, dataset, network, synthetic, labels, outcome)
    if ctx.group.leads:
        write_report(ctx, dataset, outcome, students.facts(outcome.students), committee.facts(members))
    return outcome


def settle_precision(ctx: Context) -> None:
    """Put what ``run.precision`` = "auto" comes to on the first rank's device in its place, in ``ctx`` and in the run's
    config.toml: a run computes alike wherever it is resumed, and on all ranks.
    """
    if ctx.config.run.precision == "auto":
        here = "bf16" if ctx.bf16 else "fp32"
        section = ctx.config.run.model_copy(update={"precision": ctx.group.agreed("precision", lambda: here)})
        ctx.config = ctx.config.model_copy(update={"run": section})
        if ctx.group.leads:
            write_whole(ctx.run.config_file, to_toml(ctx.config).encode())
    if ctx.bf16 and not computes_in_bf16("auto", ctx.device.type):
        ctx.warn(
            "run.precision = 'bf16': this processor has no instructions for bf16 and takes several times as long as in "
            "fp32; go on where there are some, or start anew with run.precision = 'fp32'"
        )


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
    if dataset.pseudo is not None:
        for sentence in dataset.pseudo.sentences():
            ctx.log(sentence)
        for sentence in dataset.pseudo.left_out():
            ctx.warn(sentence)
        if "statistics" in ctx.config.stages:
            require_every_class(dataset)
    return dataset


def _recover(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    chunks: list[Chunk],
    found: Statistics | None,
    points: Points | None,
    outcome: Outcome,
    judges: Sequence[Judge],
    looking_on: nn.Module | None,
) -> SyntheticSet:
    with staged(ctx, outcome.seconds, "recover"):
        if ctx.config.recover.objective in ("wmdd", "sre2l"):
            every = sum(len(chunk.labels_B) for chunk in chunks)
            settle_compilation(ctx, "recover", network, every * ctx.config.recover.iterations)
        config = ctx.config
        work = key_of(
            kind="recover",
            data=dataset.fingerprint,
            teacher=outcome.teachers_sha256,
            statistics=ctx.statistics_determinants(),
            barycenter=config.barycenter.model_dump(mode="json"),
            recover=config.recover.determinants(exclude=WITHOUT_INFLUENCE),
            ipc=config.ipc,
            seed=config.seed,
        )
        verifier = None if looking_on is None else Verifier(ctx, looking_on)
        synthetic, outcome.quality = synthesise(ctx, dataset, network, chunks, found, points, work, judges, verifier)
        outcome.images = len(synthetic.labels_N)
        if config.recover.objective == "given" and "squeeze" in config.stages:
            _warn_of_order(ctx, dataset, teacher_votes(ctx, network, synthetic, dataset), synthetic)
    return synthetic


def _relabel(ctx: Context, dataset: Dataset, network: nn.Module, synthetic: SyntheticSet, outcome: Outcome) -> None:
    if ctx.config.relabel.storage == "stored" and ctx.config.train.labels == "soft":
        with staged(ctx, outcome.seconds, "relabel"):
            relabel(ctx, synthetic, network, dataset.mean, dataset.std)


def _train(
    ctx: Context,
    dataset: Dataset,
    network: nn.Module,
    synthetic: SyntheticSet,
    labels: FkdLabels | None,
    outcome: Outcome,
) -> None:
    config = ctx.config
    with staged(ctx, outcome.seconds, "train"):
        stored = config.relabel.storage == "stored"
        if labels is not None:
            _warn_of_order(ctx, dataset, labels.votes(), synthetic)
        synthetic = labels.weigh(synthetic) if labels else synthetic
        work = key_of(
            kind="train",
            images=dataset.fingerprint if synthetic.real is not None else images_sha256(synthetic),
            teacher=outcome.teachers_sha256,
            relabel=config.relabel.model_dump(mode="json"),
            train=config.train.determinants(exclude={"compile"}),
            seed=config.student_seed,
        )

        def train(student: nn.Module, place: Place) -> StudentResult:
            return train_student(
                ctx,
                synthetic,
                student,
                network if config.relabel.storage == "online" else None,
                dataset.val,
                dataset.mean,
                dataset.std,
                (lambda epoch: read_soft_labels(ctx.run, epoch)) if stored else labels.logits if labels else None,
                work,
                labels.plan if labels else None,
                cluster_judge(ctx, dataset) if dataset.unmatched else None,
                place,
            )

        outcome.students = students.train_all(ctx, dataset.outputs, train)
        outcome.student = outcome.students[0].result
        if synthetic.real is None and ctx.group.leads:
            write_dataset_card(ctx, dataset, outcome)


def _given(ctx: Context, dataset: Dataset) -> FkdLabels | None:
    """Look at images and labels of others before any work; the labels, where they are read. Raises DataError."""
    config = ctx.config
    if "recover" not in config.stages or config.recover.objective != "given":
        return None
    given = given_files(config.recover.path, dataset.class_ids, config.ipc)
    if config.relabel.storage != "fkd" or config.train.labels == "hard" or "train" not in config.stages:
        return None
    path, classes = Path(config.relabel.path), len(dataset.class_names)
    return FkdLabels(path, given.loader_order(), classes, dataset.resolution, config.train.epochs, ctx.warn_once)


def _warn_of_order(ctx: Context, dataset: Dataset, votes_NC: torch.Tensor, synthetic: SyntheticSet) -> None:
    doubt = order_in_doubt(votes_NC, synthetic.labels_N, dataset.class_names)
    if doubt:
        ctx.warn(doubt)
