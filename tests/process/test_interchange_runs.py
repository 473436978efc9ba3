"""What leaves and what comes in, by real engines: an FKD export read back, pseudo-labels, the score's four rows."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nursery import Nursery
from scenes import from_tree, said, seen, small, tree_of_digits
from typer.testing import CliRunner

from engine import events, models, rundir
from engine.config import DataConfig, RunConfig, to_toml
from engine.data import normalisation, normalise
from engine.data.given import decoded
from engine.givenset import read_given
from engine.interchange import fkd_writing
from engine.interchange.fkd import FkdLabels
from engine.models.checkpoint import load_into, load_state
from engine.relabel import teacher_logits
from wmdd_tui.cli.commands import app
from wmdd_tui.store import evaluating, exporting, studying

Start = Callable[[RunConfig], rundir.RunDir]


@pytest.fixture
def run_engine(nursery: Nursery) -> Start:
    """A run to its end; what it printed is shown where it fails."""

    def run(settings: RunConfig) -> rundir.RunDir:
        made = rundir.create(settings)
        assert nursery.start(made.path).wait() == 0, made.console_file.read_text()
        return made

    return run


def _report(run: rundir.RunDir) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(run.report_file.read_bytes())
    return value


def _export(
    run: rundir.RunDir, target: Path, monkeypatch: pytest.MonkeyPatch, style: exporting.Style
) -> fkd_writing.Written:
    """An FKD export whose labels are written in this process, which has loaded torch already."""
    written: list[fkd_writing.Written] = []

    def write(run: rundir.RunDir, folder: Path, report: Callable[[int, int], None], style: exporting.Style) -> None:
        written.append(fkd_writing.write_fkd(run, folder / "images", folder / "labels", report, style.weights))

    monkeypatch.setattr(exporting, "_write_labels", write)
    exporting.export(run, target, "fkd", style=style)
    return written[0]


def test_an_export_trains_the_very_student_of_its_run(
    run_engine: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With labels stored in FKD's order, images and labels that are read back give the same bytes of a student."""
    native = run_engine(small("relabel.order=fkd", "relabel.mix_group=7", "barycenter.weights=optimized"))
    written = _export(native, tmp_path / "set", monkeypatch, exporting.Style())
    assert (written.stored, written.weighted, written.batches) == (True, True, 3)
    found = evaluating.survey(tmp_path / "set", None)
    rows = evaluating.rows_of(found, native.config(), "auto", False, None)
    settings = evaluating.trials_of(found, native.config(), rows, 1, "g")[0].settings
    again = run_engine(settings)
    assert [e.stage for e in seen(again) if isinstance(e, events.Stage) and e.what == "begin"] == ["recover", "train"]
    assert _report(again)["student_top1"] == _report(native)["student_top1"]
    students = [(run.student / "student.safetensors").read_bytes() for run in (native, again)]
    assert students[0] == students[1]
    assert not [line for line in said(again) if "in doubt" in line]


def test_labels_of_any_run_are_made_anew_in_fkds_order(
    run_engine: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the JPEG files, not of the run's images; with weights, for those who read them."""
    native = run_engine(small("relabel.mix=mixup", "relabel.mix_group=7"))
    written = _export(native, tmp_path / "set", monkeypatch, exporting.Style(60, weights=True))
    assert (written.stored, written.weighted) == (False, True)
    settings, given = native.config(), read_given(tmp_path / "set" / "images")
    size, order = settings.data.resolution, given.loader_order()
    labels = FkdLabels(tmp_path / "set" / "labels", order, 10, size, settings.train.epochs, pytest.fail)
    teacher = models.build_teacher(settings, 10)
    path = native.checkpoints / "teacher.safetensors"
    load_into(teacher, load_state(path), path, 10)
    source_NCHW = normalise(decoded(given, size), *normalisation(DataConfig()))
    for epoch in (0, 5):
        theirs = teacher_logits(teacher.eval(), labels.plan(epoch), source_NCHW, slice(0, 20), bf16=False)
        torch.testing.assert_close(labels.logits(epoch).float(), theirs, atol=2e-3, rtol=2e-3)
    assert (tmp_path / "set" / "images" / "sample_weights.txt").read_text() == "0.5 0.5\n" * 10


def _labels(root: Path, path: Path, wrong: int) -> Path:
    """The true digits of a tree as clusters 10, 11, 12, ``wrong`` of them filed under the next."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["image_path", "cluster_id", "confidence"])
        for number, image in enumerate(sorted((root / "train").rglob("*.png"))):
            digit = int(image.parent.name)
            writer.writerow([image.relative_to(root), 10 + (digit + (number < wrong)) % 3, 0.5])
    return path


@pytest.mark.parametrize("known", [True, False])
def test_a_student_on_pseudo_labels(run_engine: Start, tmp_path: Path, known: bool) -> None:
    """Nothing is distilled; clusters get their classes from the training images or, where those have none, from the
    validation images."""
    root = tree_of_digits(tmp_path / "digits")
    labels = _labels(root, tmp_path / "labels.csv", wrong=3)
    if not known:
        rows = [line.split(",") for line in labels.read_text().replace(chr(34), "").splitlines()]
        for row in rows[1:]:
            (root / row[0]).rename(root / "train" / row[0].replace("/", "-"))
            row[0] = row[0].replace("/", "-")
        for folder in "012":
            (root / "train" / folder).rmdir()
        with labels.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    run = run_engine(
        small(
            'data.dataset="imagefolder"', f'data.path="{root}"', "data.storage=stream",
            f'data.pseudo_labels="{labels}"', "data.pseudo_ids=clusters", "train.images=real", "train.labels=hard",
            "train.epochs=20", "train.eval_every=10",
        )
    )  # fmt: skip
    assert [e.stage for e in seen(run) if isinstance(e, events.Stage) and e.what == "begin"] == ["train"]
    report = _report(run)
    assert report["student_top1"] > 60
    facts = report["pseudo_labels"]
    assert facts["images"] == 54
    assert facts["noise_rate"] == (pytest.approx(3 / 54) if known else None)
    assert facts["matching"] == ({"10": "0", "11": "1", "12": "2"} if known else {})
    assert not list(run.images.rglob("*"))


def test_evaluate_with_the_score(nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's set, RDED's layout; every row with hard labels, so that no teacher is needed."""
    root = tree_of_digits(tmp_path / "digits")
    for label in range(3):
        folder = tmp_path / "rded" / f"{label:05d}"
        folder.mkdir(parents=True)
        for file in sorted((root / "train" / str(label)).iterdir())[:2]:
            shutil.copy(file, folder)
    (tmp_path / "small.toml").write_text(to_toml(from_tree(root)))
    monkeypatch.setattr(studying, "launch", lambda run: nursery.start(run.path))
    result = CliRunner().invoke(
        app,
        ["evaluate", str(tmp_path / "rded"), "--config", str(tmp_path / "small.toml"), "--labels", "hard", "--lrs",
         "--full-epochs", "2", "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert [row["row"] for row in found["rows"]] == [evaluating.HARD, evaluating.RANDOM, evaluating.FULL]
    assert 0 < found["lrs"]["lrs"]["mean"] < 1
    assert found["storage"] == {
        "images": evaluating.survey(tmp_path / "rded", None).image_bytes,
        "labels": 0,
        "teacher": 0,
    }
