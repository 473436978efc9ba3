"""The commands, without an engine where none is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import config, events, presets, rundir
from engine.errors import EngineError
from wmdd_tui.cli import showing
from wmdd_tui.cli.commands import app
from wmdd_tui.store.reader import EventTail
from wmdd_tui.store.runs import list_summaries

runner = CliRunner()


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def write_events(run: rundir.RunDir, *found: events.Event) -> None:
    writer = events.Writer(run.events_file)
    for event in found:
        writer.write(event)
    writer.close()


@pytest.fixture
def finished() -> rundir.RunDir:
    run = rundir.create(presets.get("digits").model_copy(update={"name": "[bold]odd\\"}))
    write_events(
        run,
        events.Hello(stages=["train"]),
        events.Metrics(stage="train", epoch=1, epochs=1, top1=88.5),
        events.End(status="finished"),
    )
    return run


def test_runs_and_show(finished: rundir.RunDir) -> None:
    rows = json.loads(invoke("runs", "--json"))
    assert [(row["id"], row["state"], row["last_top1"]) for row in rows] == [(finished.id, "finished", 88.5)]
    assert "[bold]odd\\" in invoke("show", finished.id)
    assert "finished" in invoke("runs")


def test_an_unreadable_run_is_a_row(finished: rundir.RunDir) -> None:
    finished.config_file.write_text("nonsense = [")
    assert list_summaries()[0].state == "unreadable"


def test_stop_and_delete(finished: rundir.RunDir) -> None:
    with pytest.raises(EngineError, match="is finished"):
        runner.invoke(app, ["stop", finished.id], catch_exceptions=False)
    invoke("delete", finished.id, "--yes")
    assert not finished.path.exists()


def test_config_show_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(invoke("config", "show", "--preset", "digits", "--set", "recover.r_bn=3"))
    shown = json.loads(invoke("config", "show", str(file), "--json"))
    assert shown["recover"]["r_bn"] == 3


@pytest.mark.parametrize("command", [["presets"], ["teachers"], ["datasets"], ["runs"], ["config", "schema"]])
def test_lists_have_json(command: list[str]) -> None:
    json.loads(invoke(*command, "--json"))
    assert invoke(*command)


def test_the_tail_stops_at_the_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.poll() == []
    path.write_bytes(b'{"kind":"beat"}\n{"kind":"be')
    assert len(tail.poll()) == 1
    with path.open("ab") as file:
        file.write(b'at"}\nrubbish\n{"kind":"hello","schema":99}\n')
    assert len(tail.poll()) == 1
    assert tail.damaged == 1
    assert "99" in tail.newer
    path.write_bytes(b'{"kind":"log","message":"new"}\n')
    assert len(tail.poll()) == 1
    path.unlink()
    assert tail.poll() == []


def test_show_tells_results_for_people_and_a_configuration_for_a_file(finished: rundir.RunDir) -> None:
    report = {
        "seconds": 492.1, "stages": {"squeeze": 17.8, "train": 405.3, "odd": "x"}, "student_top1": 71.66879,
        "best_epoch": 3, "w2": float(1 << 60), "precision": "bf16", "image_count": True, "teacher_top1": [1],
        "quality": {"images": {"teacher_top1": 94.0, "ce": 0.2234}, "random_real": 3, "v": {"bn": None}},
        "labels": {"bytes": 604080, "bits": 8, "top_k": 2},
    }  # fmt: skip
    finished.report_file.write_text(json.dumps(report))
    shown = invoke("show", finished.id)
    for line in (
        "student top-1          71.67 %",
        "took                   8m12",
        "stages                 squeeze 17s, train 6m45",
        "soft labels            589.9 KiB, 8 bits a logit, the 2 highest",
        "their quality          teacher top-1 94, CE 0.2234",
        "  preset = digits",
    ):
        assert line in shown.splitlines()
    assert "random photographs" not in shown
    assert "recover.curriculum" not in shown, "a default"
    written = invoke("show", finished.id, "--config")
    assert config.from_toml(written) == finished.config()


@pytest.mark.parametrize("value", [None, True, "x", [1], {"a": {}}, float("nan"), -1, 10**400])
def test_any_report_is_shown(finished: rundir.RunDir, value: object) -> None:
    facts = {key: value for key, _, _ in showing.FACTS if key not in ("id", "path")}
    told = list(showing.facts_told({**facts, "quality": {"images": value, "verifier": {"top1": value}}}))
    assert all("\n" not in line for line in told)
    finished.report_file.write_text(json.dumps({**facts, "quality": value}))
    assert finished.id in invoke("show", finished.id)


def test_teachers_are_told_once(finished: rundir.RunDir) -> None:
    again, other = rundir.create(presets.get("digits")), rundir.create(presets.get("digits"))
    for run, sha256 in ((finished, "a"), (again, "a"), (other, "b")):
        (run.checkpoints / "teacher.safetensors").touch()
        run.report_file.write_text(json.dumps({"teacher_sha256": sha256, "teacher_top1": 95.125}))
    rows = json.loads(invoke("teachers", "--json"))["runs"]
    assert {row["run"] for row in rows} == {max(finished.id, again.id), other.id}
    assert f"convnet3 on digits 16 px, top-1 95.12 %: run digits ({other.id})" in invoke("teachers")
    other.report_file.write_text('{"teacher_top1": 1' + "0" * 400 + "}")
    assert other.id in invoke("teachers"), "a report may hold anything"


def test_the_list_of_runs_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line a run, its id whole."""
    settings = presets.get("digits")
    made = [rundir.create(settings.model_copy(update={"name": name})) for name in ("x" * 14, "short")]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    lines = plain(invoke("runs")).splitlines()
    assert len(lines) == 1 + len(made)
    assert {line.split()[0] for line in lines[1:]} == {run.id for run in made}
    assert max(map(len, lines)) <= 80
    monkeypatch.setenv("COLUMNS", "140")
    assert plain(invoke("runs")).splitlines()[0].split()[-1] == "name"


def test_of_long_ids_the_other_columns_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal ids are folded; a pipe has room for everything."""
    settings = presets.get("imagenet1k-ipc10").model_copy(update={"name": "y" * 40, "ipc": 1234})
    run = rundir.create(settings)
    write_events(run, events.Metrics(stage="train", epoch=1, epochs=1, top1=88.53), events.End(status="finished"))
    monkeypatch.setenv("COLUMNS", "80")
    row = next(line.split() for line in invoke("runs").splitlines() if run.id in line)
    assert row == [run.id, "finished", "88.53", "1234", "imagenet1k", settings.teacher.arch, "500", "y" * 40]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    lines = plain(invoke("runs")).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[1:] == ["finished", "88.53", "1234"]
    assert "".join(line.split()[0] for line in lines[1:]) == run.id


def plain(text: str) -> str:
    """A text for a terminal without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize(("state", "at_work", "on"), [("running", True, False), ("crashed", False, True)])
def test_show_says_how_to_go_on_and_no_speed_of_what_stands_still(state: str, at_work: bool, on: bool) -> None:
    told = "\n".join(showing.facts_told({"id": "20261122-1", "state": state, "its_per_s": 3.0, "eta_s": 60.0}))
    assert ("wmdd-tui resume 20261122-1" in told) is on
    assert ("left" in told) is at_work
    assert ("iterations a second" in told) is at_work
