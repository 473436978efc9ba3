"""The run directory: derived states, finding runs, the lock, whole files, events."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine import events, presets, rundir
from engine.errors import RunDirError
from engine.rundir import Signs, derive_state

ALIVE = Signs(lock=True, same_host=True, started=True, end="", beat_age=1.0, paused=False, config_age=100.0)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "running"),
        ({"paused": True}, "paused"),
        ({"beat_age": 60.0}, "stalled"),
        ({"lock": False}, "crashed"),
        ({"lock": None, "beat_age": 60.0}, "crashed"),
        ({"end": "finished", "lock": False}, "finished"),
        ({"end": "stopped", "lock": False}, "stopped"),
        ({"end": "failed", "lock": False}, "failed"),
        ({"same_host": False, "lock": False}, "remote"),
        ({"started": False, "config_age": 1.0, "lock": None}, "starting"),
        ({"started": False, "config_age": 900.0, "lock": None}, "crashed"),
        ({"queued": True}, "queued"),
        ({"queued": True, "paused": True}, "paused"),
        ({"queued": True, "lock": False}, "crashed"),
        ({"queued": True, "end": "stopped", "lock": False}, "stopped"),
        ({"queued": True, "beat_age": 60.0}, "stalled"),
    ],
)
def test_state_is_derived(changes: dict[str, object], state: str) -> None:
    assert derive_state(Signs(**{**ALIVE.__dict__, **changes})) == state


def test_find(wmdd_home: Path) -> None:
    with pytest.raises(RunDirError, match="no runs"):
        rundir.find("")
    first = rundir.create(presets.get("digits").model_copy(update={"name": "my run"}))
    assert rundir.find("").path == first.path
    assert rundir.find("my-run").path == first.path
    assert rundir.find(first.id[:17]).path == first.path
    assert rundir.find(str(first.path)).path == first.path
    with pytest.raises(RunDirError, match="no run 'other'"):
        rundir.find("other")
    assert first.path.is_relative_to(wmdd_home)
    assert first.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["../../etc", "a/b", "-rf", "[red]x", "日本", "."])
def test_hostile_names_stay_inside(name: str, wmdd_home: Path) -> None:
    run = rundir.create(presets.get("digits").model_copy(update={"name": name}))
    assert run.path.parent == wmdd_home / "runs"
    assert run.config().name == name


def test_the_lock_excludes_and_readers_see_it() -> None:
    run = rundir.create(presets.get("digits"))
    assert rundir.lock_held(run) is None
    with rundir.hold_lock(run) as locked:
        assert locked
        assert rundir.lock_held(run) is True
    assert rundir.lock_held(run) is False


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    rundir.write_whole(target, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        rundir.write_whole(target, b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_events_survive_damage(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind":"beat","t":1}\ngarbage\n{"kind":"from-the-future"}\n{"kind":"be')
    writer = events.Writer(path)
    writer.write(events.Log(message="after"))
    writer.close()
    found = list(events.read(path))
    assert [type(event) for event in found] == [events.Beat, events.Log]


def test_non_finite_numbers_are_strings() -> None:
    assert events.numbers([1.0, float("nan"), float("-inf")]) == [1.0, "nan", "-inf"]


def rewrite_process(run: rundir.RunDir, **facts: object) -> None:
    run.process_file.write_text(json.dumps({**json.loads(run.process_file.read_bytes()), **facts}))


def test_identity_is_checked_before_a_kill() -> None:
    run = rundir.create(presets.get("digits"))
    rundir.write_process(run, {})
    assert rundir.identified(run) is not None
    rewrite_process(run, create_time=1.0)
    assert rundir.identified(run) is not None, "a clock that was set changes the creation time, not the start"
    rewrite_process(run, start_ticks=1)
    assert rundir.identified(run) is None
    assert rundir.kill(run) is False
    rewrite_process(run, start_ticks=None)
    assert rundir.identified(run) is None, "where starts are not told, the creation time counts"
