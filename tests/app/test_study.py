"""Studies: rows, trials, finding their runs, the table; and carrying them out with a stand-in for the engine."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from engine import config, events, presets, rundir
from engine.errors import ConfigError, DataError
from wmdd_tui.cli import studies
from wmdd_tui.cli.commands import app
from wmdd_tui.store import study, study_table, studying

runner = CliRunner()

#: Does what a run directory shows of an engine: a lock file, an end, a report. Fails for seed 9, stops when asked.
ENGINE = """
import json, sys, time
from pathlib import Path
from engine import events, rundir
run = rundir.RunDir(Path(sys.argv[-1]))
with rundir.hold_lock(run):
    rundir.write_process(run, {})
    writer = events.Writer(run.events_file)
    seed = run.config().seed
    status = "failed" if seed == 9 and not (run.path / "again").exists() else "finished"
    while seed == 7 and not (run.path / "again").exists():
        if run.take_request("stop"):
            status = "stopped"
            break
        time.sleep(0.01)  # the pace of asking
    (run.path / "again").touch()
    if status == "finished":
        top1 = 50 + run.config().recover.r_bn + seed
        rundir.write_whole(run.report_file, json.dumps({"student_top1": top1, "seconds": 2}).encode())
    writer.write(events.End(status=status, **json.loads((run.path.parents[2] / "said.json").read_text() or "{}")))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path / "home"))
    stand_in = tmp_path / "stand_in.py"
    stand_in.write_text(ENGINE)
    (tmp_path / "said.json").write_text("")

    def launch(run: rundir.RunDir) -> Any:
        import subprocess

        return subprocess.Popen([sys.executable, str(stand_in), str(run.path)])

    monkeypatch.setattr(studying, "launch", launch)
    return tmp_path


def sweep(*arguments: str) -> tuple[int, Any, str]:
    result = runner.invoke(app, ["sweep", *arguments, "--json"], catch_exceptions=False)
    lines = result.stdout.splitlines()
    return result.exit_code, json.loads(lines[-1]) if lines else None, result.output


def test_a_grid_is_every_combination() -> None:
    rows = study.rows_of_grid(["recover.r_bn=1,10", "ipc=1, 2"])
    assert rows == [
        (f"recover.r_bn={r_bn}, ipc={ipc}", [f"recover.r_bn={r_bn}", f"ipc={ipc}"])
        for r_bn in (1, 10)
        for ipc in (1, 2)
    ]
    assert study.rows_of_grid([]) == [("base", [])]


@pytest.mark.parametrize("grid", ["recover.r_bn", "recover.r_bn=", "recover.r_bn=,"])
def test_a_grid_without_values_is_refused(grid: str) -> None:
    with pytest.raises(ConfigError, match="names no values"):
        study.rows_of_grid([grid])


def test_trials_carry_seed_group_and_assignments() -> None:
    trials = study.trials_of(presets.get("digits"), [("a", ["recover.r_bn=3"])], [0, 5], "g")
    assert [(one.seed, one.settings.seed, one.settings.group, one.settings.recover.r_bn) for one in trials] == [
        (0, 0, "g", 3.0),
        (5, 5, "g", 3.0),
    ]
    with pytest.raises(ConfigError, match="1001 runs"):
        study.trials_of(presets.get("digits"), [("a", [])], range(1001), "g")


def test_a_study_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'preset = "digits"\nset = ["ipc=2"]\nseeds = [3]\n[[row]]\nlabel = "a"\nset = ["recover.r_bn=7"]\n'
        '[[row]]\nlabel = "b"\npreset = "digits-sre2l"\n'
    )
    first, second = study.trials_of_file(study.read_study(file), tmp_path, ["recover.lr=0.5"], "")
    assert (first.row, first.seed, first.settings.ipc, first.settings.recover.r_bn) == ("a", 3, 2, 7.0)
    assert (second.settings.recover.objective, second.settings.ipc, second.settings.recover.lr) == ("sre2l", 2, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = 3", "is not a study"),
        ("[[row]]\nlabel='a'\n[[row]]\nlabel='a'", "two rows have the label 'a'"),
        ("colour = 1", "is not a study"),
        ("set = [", "is not a study"),
    ],
)
def test_a_wrong_study_file_is_one_message(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        study.read_study(file)


def test_a_study_names_its_base_once(tmp_path: Path) -> None:
    for found in (study.StudyFile(), study.StudyFile(preset="digits", config="mine.toml")):
        with pytest.raises(ConfigError, match="either preset or config"):
            study.base_of(found, tmp_path)


def test_runs_are_found_by_what_they_compute() -> None:
    trial, other = study.trials_of(presets.get("digits"), [("a", [])], [0, 1], "g")
    renamed = config.override(trial.settings, ["name=else", "group=other", "run.device=cpu"])
    run = rundir.create(renamed)
    found = study.find_runs([trial, other])
    assert found[0].run == run
    assert (found[1].run, found[1].state) == (None, "missing")


@pytest.mark.parametrize(("group", "belongs"), [("g", True), ("", False), ("other", False)])
def test_a_run_that_was_broken_off_belongs_to_the_study_it_was_begun_for(group: str, belongs: bool) -> None:
    """Another's may have failed on a device that was given for it alone."""
    (trial,) = study.trials_of(presets.get("digits"), [("a", [])], [0], "g")
    run = rundir.create(config.override(trial.settings, [f"group={group}"]))
    with closing(events.Writer(run.events_file)) as writer:
        writer.write(events.Hello(device="cpu"))
        writer.write(events.End(status="failed"))
    assert study.find_runs([trial])[0].run == (run if belongs else None)


def test_a_run_of_another_precision_is_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's configuration holds what "auto" came to where it was made."""
    monkeypatch.setattr(study, "computes_in_bf16", lambda precision, _kind: precision in ("auto", "bf16"))
    auto, half, exact = (
        study.trials_of(presets.get("digits"), [("a", [f"run.precision={name}"])], [0], "g")[0]
        for name in ("auto", "bf16", "fp32")
    )
    run = rundir.create(half.settings)
    assert [found.run for found in study.find_runs([auto, half, exact])] == [run, run, None]


def test_a_sweep_runs_each_trial_once_and_sums_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--preset", "digits", "--grid", "recover.r_bn=1,4", "--repeats", "3", "--out", str(out))
    code, answer, _ = sweep(*arguments)
    assert code == 0
    assert [row["student_top1"] for row in answer["rows"]] == [
        {"mean": 52.0, "deviation": 1.0, "count": 3},
        {"mean": 55.0, "deviation": 1.0, "count": 3},
    ]
    assert len(rundir.list_runs()) == 6
    assert "| recover.r_bn=4 | 3 | 55.00 ± 1.00 |" in (out / "results.md").read_text()
    assert json.loads((out / "results.json").read_text()) == answer["rows"]
    assert (out / "results.svg").read_bytes().startswith(b"<?xml")
    code, again, output = sweep(*arguments)
    assert (code, again, len(rundir.list_runs())) == (0, answer, 6)
    assert "started" not in output


def test_a_failed_run_is_named_and_resumed_on_request(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "digits"\nseeds = [9, 1]\n[[row]]\nlabel = "a"\nset = ["recover.r_bn=1"]\n')
    code, answer, output = sweep(str(file))
    assert code == 1
    assert answer["rows"][0]["missing"] == [9]
    assert "not finished: " in output
    code, answer, output = sweep(str(file))
    assert (code, answer["rows"][0]["missing"]) == (1, [9])
    code, answer, output = sweep(str(file), "--retry-failed")
    assert (code, answer["rows"][0]["missing"]) == (0, [])
    assert len(rundir.list_runs()) == 2


def test_why_runs_failed_is_said_once_and_is_the_exit_code(home: Path) -> None:
    file = home / "mine.toml"
    file.write_text(
        'preset = "digits"\nseeds = [9]\n[[row]]\nlabel = "a"\nset = []\n[[row]]\nlabel = "b"\nset = ["ipc=3"]\n'
    )
    said = {"error": "DataError", "message": "no image [there]", "remedy": "name another"}
    (home / "said.json").write_text(json.dumps(said))
    code, _, output = sweep(str(file))
    assert code == DataError.exit_code
    assert output.count("no image [there]\n  name another") == 1
    (home / "said.json").write_text(json.dumps({**said, "error": "DeviceFailed"}))
    file.write_text(file.read_text().replace("ipc=3", "ipc=4"))
    assert sweep(str(file))[0] == 1, "of two kinds of failure it says neither"


def test_time_that_is_up_stops_resumably_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('preset = "digits"\nseeds = [7]\n')
    code, _, output = sweep(str(file), "--minutes", "0.1")
    assert code == 3
    assert "the same command goes on" in output
    code, answer, _ = sweep(str(file))
    assert (code, answer["rows"][0]["seeds"]) == (0, [7])
    assert len(rundir.list_runs()) == 1


def test_file_and_grid_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="both a study file"):
        runner.invoke(app, ["sweep", "x.toml", "--grid", "ipc=1"], catch_exceptions=False)


def test_the_table_leaves_out_what_no_row_has() -> None:
    line = study_table.Line("a|b", [0], [], study_table.spread([50.0]), *[None] * 7, 0, 0)
    text = study_table.markdown("t", [line])
    assert "| row | n | student top-1 % |" in text
    assert "| a\\|b | 1 | 50.00 |" in text
    assert study_table.spread([]) is None
    assert study_table.spread([1.0, None, 3.0]) == study_table.Spread(2.0, 2**0.5, 2)


def test_a_narrow_terminal_keeps_the_columns_that_tell_most() -> None:
    row = (
        "fp32",
        "3",
        "95.82 ± 0.56",
        "100.00 ± 0.00",
        "97.86 ± 0.58",
        "99.7 ± 0.6",
        "11.46",
        "2.856",
        "1.106",
        "97 ± 15",
    )
    every = range(len(row))
    names = {width: [study_table.HEAD[index] for index in study_table.fitting([row], every, width)]
             for width in (10, 60, 80, 200)}  # fmt: skip
    assert names[10] == ["row", "n"]
    assert names[60] == ["row", "n", "student top-1 %", "teacher %", "s"]
    assert names[80] == ["row", "n", "student top-1 %", "top-5 %", "teacher %", "teacher on images %", "s"]
    assert names[200] == list(study_table.HEAD)
    assert study_table.fitting([("x" * 500, *row[1:])], every, 60)[:3] == [0, 1, 2]
    assert 3 not in study_table.fitting([row], [0, 1, 2], 200)


@pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 160])
def test_a_table_is_no_wider_than_its_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = study_table.spread([95.8, 96.4, 95.3])
    line = study_table.Line("a label of a row that is longer than it may be", [0, 1, 2], [], *[seeds] * 8, 0, 0)
    monkeypatch.setattr(
        "wmdd_tui.cli.studies.Console", lambda: Console(force_terminal=True, width=width, color_system=None)
    )
    studies.show_table("title", [line])
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= width
    text = " ".join(" ".join(shown).split())
    assert "95.83 ± 0.55" in text
    assert ("no room for" in text) == (width < 160)
