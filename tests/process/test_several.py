"""Several runs at once, and several users on one machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from nursery import Nursery
from scenes import content, small

from engine import events, rundir
from wmdd_tui.store.runs import list_summaries

NOBODY = 65534
pytestmark = pytest.mark.timeout(900)


def test_runs_at_the_same_time_share_a_cache_and_disturb_each_other_in_nothing(nursery: Nursery) -> None:
    runs = [rundir.create(small("run.use_cache=true", f"seed={seed}")) for seed in (0, 0, 1)]
    engines = [nursery.start(run.path) for run in runs]
    assert [engine.wait() for engine in engines] == [0, 0, 0], [run.console_file.read_text() for run in runs]
    assert content(runs[0]) == content(runs[1])
    assert content(runs[0]) != content(runs[2])
    kept = sorted(file.name.partition("-")[0] for file in (rundir.home() / "cache").iterdir())
    assert kept == sorted(["teacher", "statistics", "features", "barycenter"] * 2), "each output once for each seed"


@contextmanager
def a_user() -> Iterator[None]:
    """Somebody whom permissions hold back: this user, or where that is root an ordinary one."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that everybody may look into."""
    folder = Path(tempfile.mkdtemp(prefix="wmdd-users-"))
    folder.chmod(0o755)
    monkeypatch.setenv("WMDD_HOME", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_a_run_of_another_user_is_a_row_among_others(open_home: Path) -> None:
    runs = []
    for number in range(20):
        run = rundir.create(small(f"name=mine-{number}"))
        writer = events.Writer(run.events_file)
        writer.write(events.End(status="finished"))
        writer.close()
        runs.append(run)
    theirs = rundir.create(small("name=theirs"))
    assert all(run.path.stat().st_mode & 0o077 == 0 for run in [*runs, theirs])
    if os.geteuid() == 0:
        for path in open_home.rglob("*"):
            if not path.is_relative_to(theirs.path):
                os.chown(path, NOBODY, NOBODY)
    else:
        theirs.path.chmod(0o000)
    with a_user():
        rows = {row.id: row for row in list_summaries()}
        assert rundir.state_of(theirs) in ("starting", "crashed")
        assert rundir.kill(theirs) is False
    theirs.path.chmod(0o700)
    assert len(rows) == 21
    assert {rows[run.id].state for run in runs} == {"finished"}
    assert rows[theirs.id].state == "unreadable"
    assert "Permission denied" in rows[theirs.id].problem
