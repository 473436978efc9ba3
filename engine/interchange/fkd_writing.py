"""FKD label folders that SRe2L's training reads: mix groups become its batches, views its coordinates.

A run with ``relabel.order = "fkd"`` has stored its labels in FKD's order, and they are written as they are. Labels of
any other run, or of images written as JPEG, are made anew in that order by the run's own teacher.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engine import models
from engine.checkpoints import DAMAGE, read
from engine.committee import MeanLogits
from engine.config import RunConfig
from engine.data import normalisation
from engine.data.given import decoded
from engine.devices import computes_in_bf16
from engine.errors import CheckpointError, DataError, EngineError, RunFailure
from engine.givenset import read_given
from engine.mixing import EpochPlan, Kept, Pictures, draw_plan
from engine.models.checkpoint import load_into, load_state, member_config
from engine.models.placement import on_device
from engine.relabel import teacher_logits
from engine.rundir import RunDir
from engine.session import choose_device, take
from engine.softlabels import read_soft_labels

Report = Callable[[int, int], None]
WEIGHTS_FILE = "sample_weights.txt"


@dataclass(frozen=True)
class Written:
    """What was written: epochs, files an epoch, and whether the stored labels were taken as they are."""

    epochs: int
    batches: int
    stored: bool
    weighted: bool


def write_fkd(run: RunDir, images: Path, target: Path, report: Report, weigh: bool = False) -> Written:
    """Write ``epoch_E/batch_B.tar`` for the images of a run that were exported to ``images``.

    Weights of images are written where barycenters were given optimised ones or with ``weigh``, as WMDD's scripts
    expect: into the label files and, a line a class, into ``sample_weights.txt`` beside the class folders.
    ``report`` is told epochs done and in all. Raises EngineError for a run without its labels or teacher, OSError.
    """
    config = run.config()
    given = read_given(images)
    pictures_NCHW = decoded(given, config.data.resolution)
    if given.loader_order() != list(range(len(pictures_NCHW))):
        raise DataError(f"the folders of {images} do not sort as its classes do", "export with numbered folders")
    classes, plan_of = len(given.classes), _planner(config, len(pictures_NCHW))
    weights_N = _weights(run, config)
    if weights_N is None and weigh:
        weights_N = torch.full((len(pictures_NCHW),), 1 / config.ipc)
    if weights_N is not None:
        lines = (" ".join(f"{weight:.9g}" for weight in row) for row in weights_N.reshape(classes, -1).tolist())
        (images / WEIGHTS_FILE).write_text("\n".join([*lines, ""]))
    stored = _labels_fit(run, config, images)
    device = choose_device(config.run.device)
    take(device)
    mean, std = normalisation(config.data)
    source_NCHW = Kept(pictures_NCHW.to(device), mean, std)
    teacher = None if stored else on_device(_teacher(run, config, classes), device).eval()
    size = config.relabel.mix_group
    groups = [slice(start, start + size) for start in range(0, len(source_NCHW), size)]
    for epoch in range(config.train.epochs):
        plan = plan_of(epoch)
        logits_NC = read_soft_labels(run, epoch) if teacher is None else _logits(teacher, plan, source_NCHW, config)
        folder = target / f"epoch_{epoch}"
        folder.mkdir(parents=True)
        for number, rows in enumerate(groups):
            torch.save(batch_of(plan, rows, logits_NC, weights_N), folder / f"batch_{number}.tar")
        report(epoch + 1, config.train.epochs)
    return Written(config.train.epochs, len(groups), stored, weights_N is not None)


def batch_of(plan: EpochPlan, rows: slice, logits_NC: torch.Tensor, weights_N: torch.Tensor | None) -> list[object]:
    """The content of one file: coords, flips, partners, λ, box, logits and, where images have them, weights.

    λ is the share of the box's real area, where FKD writes the number that the box was drawn from; no reader of soft
    labels uses either.
    """
    members = plan.order_N[rows]
    partners, lam, box = None, None, None
    if plan.mix != "none":
        place = {image: at for at, image in enumerate(members.tolist())}
        partners = torch.tensor([place[image] for image in plan.partner_N[rows].tolist()])
        lam = float(plan.lam_N[rows.start])
    if plan.mix == "cutmix":
        box = plan.boxes_N4[rows.start].tolist()
    coords_B4 = plan.views.boxes_N4[members].float() / plan.size
    content: list[object] = [coords_B4, plan.views.flips_N[members], partners, lam, box, logits_NC[rows].clone()]
    return content if weights_N is None else [*content, weights_N[members]]


def _planner(config: RunConfig, images: int) -> Callable[[int], EpochPlan]:
    options = config.relabel.model_copy(update={"order": "fkd"})
    return lambda epoch: draw_plan(images, config.data.resolution, options, config.student_seed, epoch)


def _labels_fit(run: RunDir, config: RunConfig, images: Path) -> bool:
    """Whether the stored labels are of these very images, in FKD's order."""
    if config.relabel.order != "fkd" or config.relabel.storage != "stored" or any(images.rglob("*.jpg")):
        return False
    return any(run.labels.glob("epochs-*.safetensors"))


def _teacher(run: RunDir, config: RunConfig, classes: int) -> nn.Module:
    path = run.checkpoints / "teacher.safetensors"
    if not path.is_file():
        raise CheckpointError(f"run {run.id} has no teacher, so its images cannot be labelled", "export other formats")
    network = _loaded(config, path, classes)
    if not config.teacher.committee:
        return network
    members = [
        _loaded(member_config(config, entry), run.path / "committee" / str(at) / "checkpoints" / path.name, classes)
        for at, entry in enumerate(config.teacher.committee, start=1)
    ]
    return MeanLogits([network, *members])


def _loaded(config: RunConfig, path: Path, classes: int) -> nn.Module:
    network = models.build_teacher(config, classes)
    load_into(network, load_state(path), path, classes)
    return network


def _logits(teacher: nn.Module, plan: EpochPlan, source_NCHW: Pictures, config: RunConfig) -> torch.Tensor:
    """Logits (N, C) float16 of an epoch, in forward batches as relabel has them."""
    size, count = config.relabel.batch_size, len(source_NCHW)
    bf16 = computes_in_bf16(config.run.precision, source_NCHW.device.type)
    parts = [
        teacher_logits(teacher, plan, source_NCHW, slice(start, min(start + size, count)), bf16).half().cpu()
        for start in range(0, count, size)
    ]
    return torch.cat(parts)


def _weights(run: RunDir, config: RunConfig) -> torch.Tensor | None:
    """Weights of the images (N,) where barycenters were given optimised ones, class by class."""
    if config.barycenter.weights != "optimized":
        return None
    try:
        tensors = read(run.checkpoints / "barycenter.ckpt").tensors
        return tensors["weights_CK"].flatten().float()
    except (*DAMAGE, KeyError) as error:
        raise RunFailure(
            f"the weights of the images of run {run.id} cannot be read: {error}", "resume the run: it makes them again"
        ) from None


def main(run_path: str, images: str, target: str, *switches: str) -> int:
    """``python -m engine fkd RUN IMAGES TARGET [weights]``: a line of JSON a step, the last says what is there."""

    def report(done: int, total: int) -> None:
        print(json.dumps({"done": done, "total": total}), flush=True)

    try:
        written = write_fkd(RunDir(Path(run_path)), Path(images), Path(target), report, "weights" in switches)
    except EngineError as error:
        print(json.dumps({"error": error.message, "remedy": error.remedy}), flush=True)
        return error.exit_code
    except OSError as error:
        said = {"error": f"cannot write {target}: {error.strerror}", "remedy": "free some space"}
        print(json.dumps(said), flush=True)
        return 1
    print(json.dumps({"written": written.__dict__}), flush=True)
    return 0
