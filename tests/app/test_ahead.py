"""A long run is read by another process while the dashboard is imported, with the result of reading it oneself."""

from __future__ import annotations

from threading import Lock

import numpy as np
import pytest
from piloted import record

from engine import events
from engine.rundir import RunDir
from wmdd_tui.store import ahead
from wmdd_tui.store.following import Follower, read_view
from wmdd_tui.store.view import RunView


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(ahead, "LEAST_BYTES", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    return record()


def caught_up(follower: Follower) -> None:
    follower.step()
    while not follower.caught_up:
        follower.step()


def facts(view: RunView) -> dict[str, object]:
    plain = {name: value for name, value in vars(view).items() if isinstance(value, str | int | float | list | dict)}
    for name in ("_takers", "losses"):
        plain.pop(name)
    curves = {name: series.window(0, series.end, 50) for name, series in view.losses.items()}
    return plain | {
        "losses": {name: np.stack([one.lo, one.hi, one.mean]).tobytes() for name, one in curves.items()},
        "layers": list(view.layers), "log": list(view.log), "end": view.end, "hello": view.hello,
    }  # fmt: skip


def test_the_view_is_that_of_reading_itself_and_goes_on(run: RunDir) -> None:
    began = ahead.begin(run)
    assert began is not None
    view = RunView()
    follower = Follower(run, view, Lock(), began)
    caught_up(follower)
    assert view.end is not None
    assert facts(view) == facts(read_view(run))
    writer = events.Writer(run.events_file)
    writer.write(events.Log(message="later"))
    writer.close()
    caught_up(follower)
    assert [one.message for one in view.log] == [one.message for one in read_view(run).log]
    assert view.log[-1].message == "later"


def test_a_process_that_was_killed_leaves_all_to_the_reader(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_read", lambda _run, _sender: None)
    began = ahead.begin(run)
    view = RunView()
    caught_up(Follower(run, view, Lock(), began))
    assert facts(view) == facts(read_view(run))


def test_a_short_a_very_long_and_a_missing_file_are_not_worth_a_process(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = run.events_file.stat().st_size
    monkeypatch.setattr(ahead, "LEAST_BYTES", size + 1)
    assert ahead.begin(run) is None
    monkeypatch.setattr(ahead, "LEAST_BYTES", 1)
    monkeypatch.setattr(ahead, "MOST_BYTES", size - 1)
    assert ahead.begin(run) is None
    run.events_file.unlink()
    assert ahead.begin(run) is None
