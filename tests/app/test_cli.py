"""The commands, without an engine where none is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import events, presets, rundir
from engine.errors import EngineError
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
