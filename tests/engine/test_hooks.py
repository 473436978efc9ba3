"""Hooks at the end and at a stall: what they are told, and that their failure harms nothing."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from engine import __main__ as engine_main
from engine import events, hooks, presets, rundir
from engine.config import RunConfig, override
from engine.errors import ConfigError


def writing(path: Path) -> str:
    """A command that writes its WMDD variables to a file."""
    code = f"import os; open({str(path)!r}, 'w').write(os.environ['WMDD_STATE'] + ' ' + os.environ['WMDD_RUN_ID'])"
    return shlex.join([sys.executable, "-c", code])


def configured(**hooks_of_run: object) -> RunConfig:
    base = presets.get("digits")
    return base.model_copy(update={"run": base.run.model_copy(update=hooks_of_run)})


def test_a_hook_is_given_the_facts(tmp_path: Path) -> None:
    told = tmp_path / "told"
    config = configured(on_end=writing(told))
    run = rundir.create(config)
    said: list[events.Event] = []
    hooks.call("on_end", config.run.on_end, hooks.facts_of(run, config, "finished"), said.append)
    assert told.read_text() == f"finished {run.id}"
    assert not said


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("/no/such/program", "cannot be run"),
        (shlex.join([sys.executable, "-c", "print('broken'); raise SystemExit(7)"]), "exited with 7: broken"),
    ],
)
def test_a_failing_hook_is_a_line_of_the_log(command: str, problem: str) -> None:
    said: list[events.Event] = []
    hooks.call("on_stall", command, {}, said.append)
    assert isinstance(said[0], events.Log)
    assert problem in said[0].message
    assert "run.on_stall" in said[0].message


def test_a_hook_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "HOOK_SECONDS", 0.05)
    endless = shlex.join([sys.executable, "-c", "import threading; threading.Event().wait()"])
    assert "did not end" in hooks.execute(endless, {})


def test_other_ranks_stay_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    hooks.call("on_end", writing(tmp_path / "told"), {"WMDD_STATE": "", "WMDD_RUN_ID": ""}, print)
    assert not (tmp_path / "told").exists()


def test_a_silence_is_told_once_and_again_after_work() -> None:
    quiet = hooks.Quiet(10, now=0)
    assert not quiet.due(9.9, paused=False)
    quiet.note(events.Beat(), 9.9)  # a heartbeat is no work
    assert quiet.due(10, paused=False)
    assert not quiet.due(30, paused=False)
    quiet.note(events.Progress(stage="recover", done=1, total=2), 31)
    assert not quiet.due(40.9, paused=False)
    assert quiet.due(41, paused=False)


def test_a_pause_is_no_silence() -> None:
    quiet = hooks.Quiet(10, now=0)
    assert not quiet.due(50, paused=True)
    assert not quiet.due(59, paused=False)
    assert quiet.due(60, paused=False)


def test_the_engine_calls_the_hook_after_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    run = rundir.create(configured(on_end=writing(told)))

    def outcome(*_: object) -> tuple[events.End, int]:
        return events.End(status="failed", error="NonFiniteLoss", message="nan"), 1

    monkeypatch.setattr(engine_main, "_alone", outcome)
    assert engine_main.main([str(run.path)]) == 1
    assert told.read_text() == f"failed {run.id}"
    assert isinstance(list(events.read(run.events_file))[-1], events.End)


def test_unbalanced_quotes_are_refused() -> None:
    with pytest.raises(ConfigError, match="check its quotes"):
        override(presets.get("digits"), ['run.on_end="mail \'x"'])
