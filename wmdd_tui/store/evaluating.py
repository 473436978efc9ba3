"""Judging a synthetic set of anyone's: the runs it takes, and DD-Ranking's label-robust score from their accuracies.

The runs are rows of a study (``wmdd_tui.store.study``), repeated over seeds of the student while data split and teacher
stay the same. Torch-free.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import config
from engine.errors import DataError, InputError
from engine.givenset import card, fkd_epochs, folder_bytes, newest, read_given
from wmdd_tui.store.runs import read_report
from wmdd_tui.store.study import Found, Trial, bounded
from wmdd_tui.store.study_table import Spread, spread

SOFT, HARD, RANDOM, FULL = "synthetic, soft labels", "synthetic, hard labels", "random real", "all real, hard labels"


@dataclass(frozen=True)
class Survey:
    """What a folder holds: images of each class, bytes of images and of FKD labels, which are in ``labels``.

    ``changed`` is when the newest of its files was written, in seconds of the epoch.
    """

    path: Path
    classes: int
    ipc: int
    image_bytes: int
    labels: Path | None
    epochs: int
    label_bytes: int
    changed: float
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One way to train a student, and the options that are that way."""

    label: str
    assignments: list[str]


@dataclass(frozen=True)
class Score:
    """DD-Ranking's figures; accuracies in percent, ``ior`` and ``hlr`` in points, ``lrs`` between 0 and 1."""

    hlr: Spread
    ior: Spread
    lrs: Spread


def survey(path: Path, labels: Path | None) -> Survey:
    """Look at a folder: its images, and its FKD labels, which may also lie elsewhere. Raises DataError."""
    path = path.expanduser().absolute()
    given = read_given(path)
    beside = path / "labels"
    if labels is None and (beside / "epoch_0").is_dir():
        labels = beside
    labels = labels.expanduser().absolute() if labels is not None else None
    return Survey(
        path=given.root,
        classes=len(given.classes),
        ipc=given.ipc(),
        image_bytes=given.bytes,
        labels=labels,
        epochs=fkd_epochs(labels) if labels else 0,
        label_bytes=folder_bytes(labels) if labels else 0,
        changed=max(given.changed, newest([labels / "epoch_0" / "batch_0.tar"]) if labels else 0.0),
        card=card(given.root),
    )


def base_of_card(found: Survey) -> config.RunConfig:
    """The configuration that made a set of ours, from the card beside it. Raises DataError where there is none."""
    values = found.card.get("config")
    if not isinstance(values, dict):
        raise DataError(
            f"nothing beside '{found.path}' says which real images it stands for",
            "name them: --data DIR, or --preset NAME --set data.path=DIR",
        )
    made = config.from_dict({key: value for key, value in values.items() if key != "run"}, str(found.path))
    # A network that looked on while the images were made is of no use here, and need not be where it was.
    return config.override(made, ['recover.verifier=""'])


def rows_of(found: Survey, base: config.RunConfig, labels: str, lrs: bool, full_epochs: int | None) -> list[Row]:
    """The rows asked for. ``labels``: "fkd", "online", "hard", or "auto" for FKD where there are any.

    For the label-robust score: the set with hard labels, as many random real images under the same training, and all
    real images with hard labels, for ``full_epochs`` (by default as many as the teacher gets). Raises InputError.
    """
    if labels == "auto":
        labels = "fkd" if found.labels else "online"
    if labels == "fkd" and found.labels is None:
        raise InputError(f"'{found.path}' has no folder labels beside its images", "name it: --fkd DIR")
    given = ['recover.objective="given"', f"recover.path={_text(found.path)}"]
    online = ['relabel.storage="online"', 'relabel.path=""']
    soft = [*online, 'train.labels="soft"']
    hard = [*online, 'train.labels="hard"']
    rows = []
    if labels == "fkd":
        read = ['relabel.storage="fkd"', f"relabel.path={_text(found.labels)}", 'train.labels="soft"']
        rows.append(Row(SOFT, [*given, *read, f"train.epochs={min(base.train.epochs, found.epochs)}"]))
    elif labels == "online":
        rows.append(Row(SOFT, [*given, *soft]))
    if labels == "hard" or lrs:
        rows.append(Row(HARD, [*given, *hard]))
    if lrs:
        drawn = ['recover.objective="real"', 'recover.path=""']
        same = hard if labels == "hard" else soft
        epochs = rows[0].assignments[-1:] if labels == "fkd" else []
        rows.append(Row(RANDOM, [*drawn, *same, *epochs]))
        passes = full_epochs or base.squeeze.epochs
        rows.append(Row(FULL, [*drawn, *hard, 'train.images="real"', f"train.epochs={passes}"]))
    return rows


def _text(path: Path | None) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def trials_of(found: Survey, base: config.RunConfig, rows: Sequence[Row], repeats: int, group: str) -> list[Trial]:
    """Each row once for each seed of the student, counted from the configuration's. Raises ConfigError."""
    common = [
        f"ipc={found.ipc}", "recover.quality=false", 'barycenter.weights="none"', 'run.until="train"',
        'train.images="synthetic"', f"group={json.dumps(group, ensure_ascii=False)}",
    ]  # fmt: skip
    trials = []
    for row in rows:
        settings = config.override(base, [*common, *row.assignments])
        for seed in range(settings.student_seed, settings.student_seed + repeats):
            named = f"name={json.dumps(f'{row.label} s{seed}'[:80], ensure_ascii=False)}"
            trials.append(Trial(row.label, seed, config.override(settings, [f"train.seed={seed}", named])))
    return bounded(trials)


def label_robust_score(hard_real: float, hard_set: float, best_set: float, random_real: float) -> tuple[float, ...]:
    """HLR and IOR (in points) and LRS from four accuracies in percent.

    LRS = (e^α − e⁻¹) / (e − e⁻¹) with α = ½ IOR − ½ HLR in fractions (DD-Ranking, 2025).
    """
    hlr, ior = hard_real - hard_set, best_set - random_real
    alpha = (ior - hlr) / 200
    return hlr, ior, (math.exp(alpha) - math.exp(-1)) / (math.e - math.exp(-1))


def score(found: Sequence[Found]) -> Score | None:
    """The label-robust score over the seeds whose runs are all finished; None where there is none."""
    accuracies: dict[str, dict[int, float]] = {}
    for one in found:
        top1 = read_report(one.run).get("student_top1") if one.run is not None and one.state == "finished" else None
        if isinstance(top1, int | float):
            accuracies.setdefault(one.trial.row, {})[one.trial.seed] = float(top1)
    full, hard, random = (accuracies.get(row, {}) for row in (FULL, HARD, RANDOM))
    soft = accuracies.get(SOFT, hard)
    seeds = sorted(set(full) & set(hard) & set(random) & set(soft))
    figures = [label_robust_score(full[seed], hard[seed], max(soft[seed], hard[seed]), random[seed]) for seed in seeds]
    spreads = [spread(list(values)) for values in zip(*figures, strict=True)]
    hlr, ior, lrs = spreads if spreads else (None, None, None)
    return None if hlr is None or ior is None or lrs is None else Score(hlr, ior, lrs)


def teacher_bytes(found: Sequence[Found]) -> int:
    """What the teacher takes whose labels are made while training; 0 where none is needed."""
    for one in found:
        if (
            one.run is not None
            and one.trial.settings.relabel.storage == "online"
            and "squeeze" in one.trial.settings.stages
        ):
            file = one.run.checkpoints / "teacher.safetensors"
            if file.is_file():
                return file.stat().st_size
    return 0
