"""``wmdd-tui evaluate``: what a synthetic set is worth, whoever made it."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal

from engine import config
from engine.errors import DataError
from wmdd_tui.cli import options, studies
from wmdd_tui.cli.wording import flowing
from wmdd_tui.store import evaluating, study, study_table
from wmdd_tui.store.real_data import base_for, data_assignments


class Labels(StrEnum):
    """Where soft labels come from, or none."""

    auto = "auto"
    fkd = "fkd"
    online = "online"
    hard = "hard"


Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of synthetic images; docs/interchange.md lists the layouts.")
]
File = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="A TOML file; see `wmdd-tui config show`.")]
LabelKind = Annotated[
    Labels,
    typer.Option("--labels", help="fkd reads label files, online asks a teacher; auto takes fkd if there is any."),
]
Fkd = Annotated[Path | None, typer.Option("--fkd", metavar="DIR", help="Folder of epoch_0/…; by default DIR/labels.")]
Repeats = Annotated[int, typer.Option(min=1, max=100, help="Seeds of the student: mean and standard deviation.")]
Lrs = Annotated[bool, typer.Option("--lrs", help="DD-Ranking's label-robust score: three further rows.")]
FullEpochs = Annotated[
    int | None,
    typer.Option("--full-epochs", min=1, help="With --lrs: passes over all real images; else squeeze.epochs."),
]
Group = Annotated[str, typer.Option(help="Name under which Runs shows the runs together.")]


@flowing
def evaluate(
    folder: Folder,
    data: options.Data = None,
    file: File = None,
    preset: options.Preset = "",
    assignments: options.Assignments = None,
    labels: LabelKind = Labels.auto,
    fkd: Fkd = None,
    repeats: Repeats = 1,
    lrs: Lrs = False,
    full_epochs: FullEpochs = None,
    jobs: studies.Jobs = 1,
    devices: studies.Devices = None,
    group: Group = "",
    out: studies.Out = None,
    minutes: studies.Minutes = None,
    retry_failed: studies.Retry = False,
    as_json: options.Json = False,
) -> None:
    """Train students on a synthetic set and score them on the real validation images.

    DIR is a set of WMDD, SRe2L or CDA (new000/class000_id000.jpg), of RDED (00000/…), class folders of any name that
    sort as the classes do, images side by side (class000_id000.jpg), Parquet with image and class_id, or an export of
    ours. Soft labels come from FKD files (DIR/labels/epoch_0/batch_0.tar, or --fkd), or from a teacher while training.

    The real images are named by --data, or by a preset or a configuration; an export of ours says them itself. Without
    a preset images are processed at their own size, 16 to 64 px, by a ConvNet: for others' sets give the settings they
    were made for.

    Every run can be seen, resumed and compared as any other. Ctrl-C loses nothing: the same command goes on.

    Example: wmdd-tui evaluate ~/sre2l/syn --fkd ~/sre2l/labels --preset imagenet1k-ipc10 --repeats 3

    Example: wmdd-tui evaluate ~/distilled --lrs --repeats 3 --json
    """
    if fkd is not None and not fkd.expanduser().is_dir():
        raise DataError(f"--fkd '{fkd}' is no folder", "name the folder of the labels, which holds epoch_0")
    found = evaluating.survey(folder, fkd)
    base = _base(found, data, file, preset)
    given = [*(data_assignments(data) if data is not None else []), *(assignments or [])]
    group = group or f"evaluate {found.path.parent.name if found.path.name == 'images' else found.path.name}"[:80]
    base = config.override(base, given)
    rows = evaluating.rows_of(found, base, labels.value, lrs, full_epochs)
    trials = evaluating.trials_of(found, base, rows, repeats, group)
    ended = studies.work(trials, devices, jobs, minutes, retry_failed, found.changed)
    runs = study.find_runs(trials, since=found.changed)
    lines = study_table.lines_of(runs)
    score = evaluating.score(runs) if lrs else None
    teacher = evaluating.teacher_bytes(runs)
    if out is not None:
        studies.write_table(out, group, lines)
    if as_json:
        answer: dict[str, Any] = {
            "group": group,
            "set": str(found.path),
            "classes": found.classes,
            "ipc": found.ipc,
            "rows": study_table.as_json(lines),
            "lrs": asdict(score) if score else None,
            "storage": {"images": found.image_bytes, "labels": found.label_bytes, "teacher": teacher},
        }
        print(json.dumps(answer, ensure_ascii=False))
    else:
        studies.show_table(group, lines)
        _say(found, score, teacher)
    studies.leave(ended)


def _base(found: evaluating.Survey, data: Path | None, file: Path | None, preset: str) -> config.RunConfig:
    """What the students are trained by: a configuration, a preset, what made the set, or what the data suggest."""
    if file is not None or preset:
        return options.resolve(file, preset, [])
    if data is not None and not isinstance(found.card.get("config"), dict):
        return base_for(data)
    return evaluating.base_of_card(found)


def _say(found: evaluating.Survey, score: evaluating.Score | None, teacher: int) -> None:
    console = Console()
    if score is not None:
        console.print(
            f"label-robust score {score.lrs.text('.3f')}: gain over random real images (IOR) {score.ior.text()} "
            f"points, loss against all real images with hard labels (HLR) {score.hlr.text()} points",
            highlight=False,
            soft_wrap=True,
        )
    labels = f"soft labels {decimal(found.label_bytes)}" if found.label_bytes else "no label files"
    needs = f", teacher {decimal(teacher)}" if teacher else ""
    console.print(f"storage: images {decimal(found.image_bytes)}, {labels}{needs}", highlight=False, soft_wrap=True)
