"""The command that reproduces ImageNette: its studies, its small data, what it reads out of runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest
import reproduce
from PIL import Image

from engine import config, events, presets, rundir
from wmdd_tui.store import study

FILES = sorted(reproduce.STUDIES.glob("*.toml"))


@pytest.fixture(autouse=True)
def data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WMDD_DATA", str(tmp_path))


def _trials(file: Path) -> list[study.Trial]:
    return study.trials_of_file(study.read_study(file), file.parent, [], file.stem)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_study_is_one_and_has_three_seeds(file: Path) -> None:
    rows: dict[str, set[int]] = {}
    for trial in _trials(file):
        rows.setdefault(trial.row, set()).add(trial.seed)
    assert all(seeds == {0, 1, 2} for seeds in rows.values())


def test_published_figures_stand_beside_rows_there_are() -> None:
    rows = {trial.row for file in FILES for trial in _trials(file)}
    assert set(reproduce.PAPER) | set(reproduce.BEST) <= rows


def test_every_preset_has_its_control_under_the_same_labels_and_student() -> None:
    trials = {trial.row: trial.settings for file in FILES for trial in _trials(file) if trial.seed == 0}
    for kind in ("paper", "best"):
        for ipc in (1, 10, 50):
            ours, control = trials[f"{kind}, IPC {ipc}"], trials[f"random real as {kind}, IPC {ipc}"]
            assert control.recover.objective == "real"
            assert (ours.train, ours.relabel, ours.ipc) == (control.train, control.relabel, control.ipc)


def test_an_ingredient_taken_out_is_the_only_difference() -> None:
    best, *rows = _trials(next(file for file in FILES if "ingredients" in file.stem))[::3]
    whole = best.settings.model_dump(exclude={"name"})
    for row in rows:
        other = row.settings.model_dump(exclude={"name"})
        assert other != whole, row.row
        sections = {name for name in whole if whole[name] != other[name]}
        assert len(sections - {"relabel"}) == 1, f"{row.row} changes {sections}"


def test_a_rehearsal_is_small_whatever_a_row_sets(tmp_path: Path) -> None:
    for file in reproduce.small_studies(FILES, tmp_path):
        for trial in _trials(file):
            assert trial.seed == 0
            assert (trial.settings.recover.iterations, trial.settings.train.epochs) == (4, 4), trial.row
            assert trial.settings.data.resolution == 32


def test_a_rehearsal_takes_some_photographs_of_every_class(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("n1", "n2"):
            (tmp_path / "all" / split / label).mkdir(parents=True)
            for number in range(30):
                Image.new("RGB", (8, 8)).save(tmp_path / "all" / split / label / f"{number:02d}.png")
    for _ in range(2):  # given again, it goes on
        small = reproduce.small_data(tmp_path / "all", tmp_path / "small")
    assert {
        split: [len(list((small / split / label).iterdir())) for label in ("n1", "n2")] for split in ("train", "val")
    } == {"train": [24, 24], "val": [12, 12]}


def _run(tmp_path: Path, found: list[events.Event]) -> rundir.RunDir:
    run = rundir.create(presets.get("digits"), root=tmp_path)
    writer = events.Writer(run.events_file)
    for one in found:
        writer.write(one)
    writer.close()
    return run


def test_stages_of_a_run_that_was_broken_off(tmp_path: Path) -> None:
    mib = 2**20
    run = _run(
        tmp_path,
        [
            events.Stage(stage="squeeze", what="begin"),
            events.Stage(stage="squeeze", what="end", seconds=0.1, cached=True),
            events.Stage(stage="recover", what="begin"),
            events.Progress(stage="recover", done=40, total=100, unit="iterations"),
            events.Memory(rss=300 * mib),
            events.End(status="stopped"),
            events.Stage(stage="recover", what="begin"),
            events.Memory(rss=200 * mib, peak=900 * mib),
            events.Progress(stage="recover", done=100, total=100, unit="iterations"),
            events.Stage(stage="recover", what="end", seconds=20.0),
        ],
    )
    found = reproduce.stages_of(run)
    assert found["squeeze"].cached
    assert found["squeeze"].rate() is None
    recover = found["recover"]
    assert (recover.seconds, recover.rate(), recover.unit, recover.peak) == (20.0, 5.0, "iterations", 900 * mib)


def test_results_say_what_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path / "home"))
    work = reproduce.Work(tmp_path, ['data.path="/nowhere"'], 1, 9.0, FILES[:1])
    reproduce.write_results(work)
    text = (tmp_path / "results.md").read_text()
    assert "| paper, IPC 10 |  | not finished | 64.8 |" in text
    assert json.loads((tmp_path / "results.json").read_text())["studies"]["1-paper"][0]["missing"] == [0, 1, 2]


def test_a_run_of_several_studies_is_shown_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's own setting at IPC 10 is a row of the ablation and of λ too."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path / "home"))
    settings = next(trial.settings for trial in _trials(FILES[0]) if (trial.row, trial.seed) == ("paper, IPC 10", 0))
    run = rundir.create(settings)
    run.report.mkdir(exist_ok=True)
    run.report_file.write_text(json.dumps({"student_top1": 61.25, "seed": 0, "stages": {"train": 3.0}}))
    Image.new("RGB", (8, 8)).save(run.report / "contact_sheet.png")
    writer = events.Writer(run.events_file)
    for one in (
        events.Stage(stage="train", what="begin"),
        events.Progress(stage="train", done=30, total=30, unit="epochs"),
        events.Stage(stage="train", what="end", seconds=3.0),
        events.End(status="finished"),
    ):
        writer.write(one)
    writer.close()
    reproduce.write_results(reproduce.Work(tmp_path, [], 1, 9.0, FILES, rehearsal=True))
    text = (tmp_path / "results.md").read_text()
    assert text.count("| 61.25 |") == 3
    assert text.count("| paper, IPC 10 | 0 | train | 3.0 | 10 epochs/s |") == text.count("epochs/s") == 1
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["paper-IPC-10-s0.png"]
    assert "The accuracies mean nothing" in text


def test_one_call_goes_on_where_the_last_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is told the minutes; one that ran out of them is repeated, a failed one ends the command."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path / "home"))
    codes = [3, 0, 1]
    commands: list[list[str]] = []

    def answer(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, codes[len(commands) - 1])

    monkeypatch.setattr(reproduce.subprocess, "run", answer)
    work = reproduce.Work(tmp_path, [], 1, 7.5, FILES[:2])
    assert reproduce.carry_out(work, once=True) == reproduce.MORE_TO_DO
    assert len(commands) == 1
    assert reproduce.carry_out(work, once=False) == 1
    names = [Path(command[command.index("sweep") + 1]).stem for command in commands]
    assert names == ["1-paper", "1-paper", "2-best"]
    assert all(command[command.index("--minutes") + 1] == "7.5" for command in commands)
    told = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert [one["exit"] for one in told] == codes


def test_the_score_is_taken_from_what_evaluate_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path / "home"))
    spread = {"mean": 0.25, "deviation": 0.125, "count": 3}

    def answer(command: list[str], stdout: IO[bytes]) -> subprocess.CompletedProcess[bytes]:
        stdout.write(json.dumps({"lrs": {"hlr": spread, "ior": spread, "lrs": spread | {"deviation": None}}}).encode())
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(reproduce.subprocess, "run", answer)
    work = reproduce.Work(tmp_path, [], 1, 9.0, [])
    assert reproduce.call(work, reproduce.SCORE, ["evaluate"]) == 0
    reproduce.write_results(work)
    text = (tmp_path / "results.md").read_text()
    assert "| HLR | 0.250 | 0.125 | 3 |" in text
    assert "| LRS | 0.250 |  | 3 |" in text


def test_what_is_no_imagenette_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, reproduce.__file__, "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "has no folder train" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_best_presets_follow_their_ipc() -> None:
    for ipc in (1, 10, 50):
        settings: config.RunConfig = presets.get(f"imagenette-best-ipc{ipc}")
        assert settings.ipc == ipc
        assert settings.train.batch_size == settings.relabel.mix_group == min(10 * ipc, 50)
        assert settings.statistics.variance == "exact"
