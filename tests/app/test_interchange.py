"""Exports for others with their card, others' sets as rows of runs, the label-robust score; without an engine."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_twins import IDS, IPC, NAMES, answer, make_run
from typer.testing import CliRunner

from engine import config, events, presets, rundir
from engine.effects import without_effect
from engine.errors import ConfigError, DataError, InputError
from engine.givenset import read_given
from wmdd_tui.cli.commands import app
from wmdd_tui.cli.pasted import read_pasted
from wmdd_tui.store import evaluating, exporting, studying
from wmdd_tui.store.real_data import base_for, data_assignments

runner = CliRunner()


# --- export -----------------------------------------------------------------------------------------------


def test_numbered_folders_of_jpeg(tmp_path: Path) -> None:
    run = make_run("one")
    found = answer("export", "one", "--to", str(tmp_path / "set"), "--numbered", "--quality", "95")
    for label in range(2):
        for ordinal in range(IPC):
            file = tmp_path / "set" / f"new{label:03d}" / f"class{label:03d}_id{ordinal:03d}.jpg"
            with Image.open(file) as picture:
                assert (picture.format, picture.size) == ("JPEG", (4, 4))
    assert found["images"] == 6
    given = read_given(tmp_path / "set")
    assert [one.name for one in given.classes] == ["new000", "new001"]
    assert run.images.is_dir()


def test_the_card_says_what_someone_needs_who_gets_the_images_alone(tmp_path: Path) -> None:
    run = make_run("one | two")
    Image.new("RGB", (9, 9)).save(run.report / "contact_sheet.png")
    values = {
        "name": "one | two", "source": "imagenette", "class_ids": IDS, "class_names": NAMES, "resolution": 4,
        "ipc": IPC, "seed": 3, "teacher_sha256": "ab" * 32, "accuracies": {"teacher_top1": 95.0, "student_top1": 80.0},
        "config": presets.get("digits").model_dump(mode="json"),
    }  # fmt: skip
    (run.images / "dataset.json").write_text(json.dumps(values))
    answer("export", run.id, "--to", str(tmp_path / "set"), "--format", "parquet", "--license", "cc-by-4.0")
    page = (tmp_path / "set" / "README.md").read_text()
    front = page.split("---")[1]
    assert 'license: "cc-by-4.0"' in front
    assert "size_categories:\n- n<1K" in front
    assert 'path: "train-*.parquet"' in front
    assert "# one \\| two" in page
    assert "![The first images of each class](contact_sheet.png)" in page
    assert (tmp_path / "set" / "contact_sheet.png").read_bytes() == (run.report / "contact_sheet.png").read_bytes()
    assert "| student, top-1 | 80.00 |" in page
    assert "| 1 | n02102040 | English springer |" in page
    assert '"r_bn": 10.0' in page
    again = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert again["licence"] == "cc-by-4.0"
    answer("export", run.id, "--to", str(tmp_path / "plain"))
    assert 'license: "unknown"' in (tmp_path / "plain" / "README.md").read_text()


@pytest.mark.parametrize(
    ("form", "style", "said"),
    [
        ("safetensors", exporting.Style(quality=90), "no JPEG quality"),
        ("parquet", exporting.Style(numbered=True), "no class folders"),
        ("imagefolder", exporting.Style(quality=101), "101"),
    ],
)
def test_a_style_without_effect_is_refused(tmp_path: Path, form: str, style: exporting.Style, said: str) -> None:
    with pytest.raises(InputError, match=said):
        exporting.export(make_run("one"), tmp_path / "set", form, style=style)
    assert not (tmp_path / "set").exists()


def test_what_the_engine_says_of_labels_it_cannot_write_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("one")

    def stand_in(_command: list[str], **options: Any) -> Any:
        said = json.dumps({"error": f"run {run.id} has no teacher", "remedy": "export other formats"})
        return original([sys.executable, "-c", f"print('noise'); print({said!r}); raise SystemExit(2)"], **options)

    original = subprocess.Popen
    monkeypatch.setattr(exporting.subprocess, "Popen", stand_in)
    with pytest.raises(InputError, match="has no teacher"):
        exporting.export(run, tmp_path / "set", "fkd")
    assert not (tmp_path / "set").exists()


# --- evaluate ---------------------------------------------------------------------------------------------


def test_the_label_robust_score_is_dd_rankings() -> None:
    """α = 0 where gain and loss are equal; the ends of the scale are α = −1 and α = 1."""
    low, high = 1 / math.e, math.e
    for accuracies, alpha in (((60, 60, 50, 50), 0.0), ((0, 100, 100, 0), 1.0), ((100, 0, 0, 100), -1.0)):
        assert evaluating.label_robust_score(*accuracies)[2] == pytest.approx((math.exp(alpha) - low) / (high - low))
    hlr, ior, lrs = evaluating.label_robust_score(90.0, 60.0, 80.0, 70.0)
    assert (hlr, ior) == (30.0, 10.0)
    assert lrs == pytest.approx((math.exp(0.5 * 0.1 - 0.5 * 0.3) - low) / (high - low))


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """A set as SRe2L leaves it, with label folders of four epochs beside it."""
    for label in range(3):
        for number in range(2):
            file = tmp_path / "syn" / f"new{label:03d}" / f"class{label:03d}_id{number:03d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(file)
    for epoch in range(4):
        (tmp_path / "labels" / f"epoch_{epoch}").mkdir(parents=True)
        (tmp_path / "labels" / f"epoch_{epoch}" / "batch_0.tar").write_bytes(b"12345")
    return tmp_path


def _rows(found: evaluating.Survey, labels: str, lrs: bool) -> list[config.RunConfig]:
    rows = evaluating.rows_of(found, presets.get("digits"), labels, lrs, None)
    return [trial.settings for trial in evaluating.trials_of(found, presets.get("digits"), rows, 1, "g")]


def test_rows_are_runs_that_do_only_what_their_labels_need(others: Path) -> None:
    found = evaluating.survey(others / "syn", others / "labels")
    assert (found.classes, found.ipc, found.epochs, found.label_bytes) == (3, 2, 4, 20)
    fkd, hard, random, full = _rows(found, "auto", True)
    assert fkd.stages == ("recover", "relabel", "train")
    assert (fkd.train.epochs, fkd.ipc, fkd.relabel.path) == (4, 2, str(others / "labels"))
    assert hard.stages == ("recover", "relabel", "train")
    assert (random.recover.objective, random.train.labels, random.train.epochs) == ("real", "soft", 4)
    assert "squeeze" in random.stages, "random images are labelled by a teacher"
    assert full.stages == ("train",)
    assert (full.train.images, full.train.epochs) == ("real", presets.get("digits").squeeze.epochs)
    online = _rows(evaluating.survey(others / "syn", None), "auto", False)
    assert [one.relabel.storage for one in online] == ["online"]
    with pytest.raises(InputError, match="no folder labels"):
        _rows(evaluating.survey(others / "syn", None), "fkd", False)


def test_repeats_change_the_student_alone(others: Path) -> None:
    found = evaluating.survey(others / "syn", None)
    rows = evaluating.rows_of(found, presets.get("digits"), "hard", False, None)
    settings = [trial.settings for trial in evaluating.trials_of(found, presets.get("digits"), rows, 3, "g")]
    assert [one.student_seed for one in settings] == [0, 1, 2]
    assert {one.seed for one in settings} == {0}, "the split, and so what the set was distilled from, stays"


def test_labels_with_a_gap_are_refused(others: Path) -> None:
    (others / "labels" / "epoch_1" / "batch_0.tar").unlink()
    (others / "labels" / "epoch_1").rmdir()
    with pytest.raises(DataError, match="no epoch_1, but epoch_3"):
        evaluating.survey(others / "syn", others / "labels")


def test_evaluate_sums_up_rows_score_and_storage(others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = {"synthetic, soft": 70.0, "synthetic, hard": 50.0, "random": 60.0, "all": 90.0}

    class Finished:
        def poll(self) -> int:
            return 0

    def launch(run: rundir.RunDir) -> Finished:
        settings = run.config()
        top1 = next(value for name, value in accuracies.items() if settings.name.startswith(name))
        run.report_file.write_text(json.dumps({"student_top1": top1 + settings.student_seed, "seconds": 1}))
        writer = events.Writer(run.events_file)
        writer.write(events.End(status="finished"))
        writer.close()
        return Finished()

    monkeypatch.setattr(studying, "launch", launch)
    monkeypatch.setattr(studying, "POLL_SECONDS", 0.001)
    found = answer("evaluate", str(others / "syn"), "--fkd", str(others / "labels"), "--preset", "digits", "--lrs",
                   "--repeats", "2")  # fmt: skip
    assert [row["row"] for row in found["rows"]] == [
        evaluating.SOFT, evaluating.HARD, evaluating.RANDOM, evaluating.FULL,
    ]  # fmt: skip
    assert found["rows"][0]["student_top1"] == {"mean": 70.5, "deviation": pytest.approx(0.7071, abs=1e-3), "count": 2}
    assert found["lrs"]["hlr"]["mean"] == 40.0
    assert found["lrs"]["ior"]["mean"] == 10.0
    assert found["lrs"]["lrs"]["mean"] == pytest.approx(evaluating.label_robust_score(90, 50, 70, 60)[2])
    assert found["storage"]["labels"] == 20
    assert found["storage"]["images"] == evaluating.survey(others / "syn", None).image_bytes
    shown = runner.invoke(app, ["evaluate", str(others / "syn"), "--fkd", str(others / "labels"), "--preset", "digits",
                                "--lrs", "--repeats", "2"])  # fmt: skip
    assert "label-robust score" in shown.output
    made = rundir.list_runs()
    assert len(made) == 8, "finished runs are not run again"
    for run in made:
        os.utime(run.config_file, (1.0, 1.0))
    answer("evaluate", str(others / "syn"), "--labels", "hard", "--preset", "digits")
    assert len(rundir.list_runs()) == 9, "unless the images were written after them"


def test_nobody_knows_what_an_unnamed_set_stands_for(others: Path) -> None:
    result = runner.invoke(app, ["evaluate", str(others / "syn")])
    assert isinstance(result.exception, DataError)
    assert "--data DIR" in result.exception.remedy


# --- train on pseudo-labels -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        (tmp_path / "photos" / split / "ant").mkdir(parents=True)
        Image.new("RGB", (48, 32)).save(tmp_path / "photos" / split / "ant" / "0.png")
    return tmp_path / "photos"


def test_pseudo_labels_make_a_run_of_training_alone(tree: Path) -> None:
    text = f"wmdd-tui train --data {tree} --pseudo-labels labels.csv --clusters --set train.epochs=3"
    settings = read_pasted(text).config
    assert settings.stages == ("train",)
    assert (settings.data.path, settings.data.resolution) == (str(tree), 32)
    assert settings.data.pseudo_labels == str(Path("labels.csv").absolute())
    assert (settings.data.pseudo_ids, settings.data.on_mismatch) == ("clusters", "error")
    assert (settings.train.labels, settings.train.epochs) == ("hard", 3)
    assert config.from_toml(config.to_toml(settings)) == settings
    plain = read_pasted("wmdd-tui train --preset digits").config
    assert plain.stages == config.STAGES


def test_labels_that_are_not_there_are_refused_before_there_is_a_run(tmp_path: Path) -> None:
    result = runner.invoke(app, ["train", "--preset", "digits", "--pseudo-labels", str(tmp_path / "none.csv")])
    assert isinstance(result.exception, ConfigError)
    assert "none.csv' is no file" in result.exception.message
    assert rundir.list_runs() == []


def test_what_a_preset_says_of_recovery_is_left_out_where_nothing_is_recovered() -> None:
    assert without_effect(read_pasted("wmdd-tui train --preset digits --pseudo-labels labels.csv").config) == []
    text = "wmdd-tui train --preset digits --pseudo-labels labels.csv --set recover.lr=3"
    assert "recover.lr = 3.0" in without_effect(read_pasted(text).config)[0]


def test_switches_about_no_file_are_refused() -> None:
    with pytest.raises(ConfigError, match="--clusters is about --pseudo-labels"):
        read_pasted("wmdd-tui train --clusters")


def test_the_kind_of_a_folder_of_real_images(tree: Path, tmp_path: Path) -> None:
    assert data_assignments(tree)[0] == 'data.dataset="imagefolder"'
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-0.parquet").write_bytes(b"")
    assert data_assignments(tmp_path / "shards")[0] == 'data.dataset="parquet"'
    (tmp_path / "c" / "cifar-10-batches-py").mkdir(parents=True)
    assert data_assignments(tmp_path / "c")[0] == 'data.dataset="cifar10"'
    assert base_for(tree).data.resolution == 32
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "holds no data set"), ("gone", "is no folder")):
        with pytest.raises(DataError, match=said):
            data_assignments(tmp_path / name)
