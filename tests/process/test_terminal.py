"""The true dashboard on a true terminal with the true engine, by the keyboard alone."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pty_session import PtySession, dashboard

from engine import presets, rundir
from engine.config import override
from engine.rundir import RunDir
from wmdd_tui.store.launch import launch

pytestmark = pytest.mark.timeout(2400)  # a busy machine is ten times slower than a quiet one

#: Limits for one thing to be seen; on a quiet machine each takes a second or two, a whole run some twenty.
PATIENCE = 300.0
WHOLE_RUN = 1200.0
#: The digits demo with fewer photographs and a narrow teacher, so that most of its time is recovery.
REDUCED = (
    "wmdd-tui run --preset digits --ipc 3 --set data.max_per_class=20 --set teacher.width=8 --set squeeze.epochs=2"
    " --set barycenter.restarts=1 --set recover.preview_every=50 --set recover.iterations={iterations}"
    " --set train.epochs=6 --set train.eval_every=3 --set run.threads=1 --set run.beat_seconds=0.5 --name {name}"
)
#: Seconds of recovery that are time enough to see its figures change, and to leave before it ends.
LONG, SHORT = 30, 12
LAYER_VALUE = re.compile(r"^[ │]*(\S+\.\d+)\s+(\d[\d.e+-]*)\s+[\d.]+ %", re.MULTILINE)
LOSS = re.compile(r"loss (\d[\d.e+-]*)")
HOST = re.compile(r"RSS [\d.]+ \w+.*")
HALF_BLOCKS = 40


@pytest.fixture(scope="module")
def pace(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Iterations a second of such a run on this machine: one differs from another by a factor of ten."""
    words = shlex.split(REDUCED.format(iterations=100, name="pace"))
    settings = [word for flag, word in pairwise(words) if flag == "--set"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WMDD_HOME", str(tmp_path_factory.mktemp("pace")))
        run = rundir.create(override(presets.get("digits"), ["ipc=3", *settings]))
        assert launch(run).wait(WHOLE_RUN) == 0, run.console_file.read_text()
    seconds: float = json.loads(run.report_file.read_bytes())["stages"]["recover"]
    return 100 / seconds


@pytest.fixture
def home(wmdd_home: Path) -> Iterator[Path]:
    """A home whose engines do not outlive the test, whatever becomes of it."""
    yield wmdd_home
    for run in rundir.list_runs():
        rundir.kill(run)


def opened(home: Path, *arguments: str) -> PtySession:
    return PtySession(dashboard(*arguments), 80, 24, {"WMDD_HOME": str(home)})


def launched_from_the_form(session: PtySession, name: str, iterations: int) -> RunDir:
    """Runs → form → pasted command → launch → Monitor; the run that came of it."""
    session.wait_for("No runs yet", PATIENCE)
    session.press("n")
    session.wait_for("wmdd-tui run --preset digits", PATIENCE)
    session.press("f4")
    session.wait_for("Paste a", PATIENCE)
    session.paste(REDUCED.format(iterations=iterations, name=name))
    session.wait_for("beat_seconds", PATIENCE)
    session.press("ctrl+r")
    session.wait_for(f'"{name}"', PATIENCE)
    session.press("ctrl+r")
    session.wait_for("1 Losses", PATIENCE)
    (run,) = rundir.list_runs()
    assert run.config().name == name
    assert run.config().recover.iterations == iterations
    return run


def changes(session: PtySession, pattern: re.Pattern[str]) -> tuple[str, str]:
    """Wait until a figure is on the screen, then until another value stands in its place; both."""

    def seen(text: str) -> str:
        found = pattern.search(text)
        return found.group(0) if found else ""

    session.wait_for(seen, PATIENCE)
    first = seen(session.text)
    session.wait_for(lambda text: seen(text) not in ("", first), PATIENCE)
    return first, seen(session.text)


def test_launch_watch_leave_come_back(home: Path, pace: float) -> None:
    with opened(home) as session:
        run = launched_from_the_form(session, "cockpit", int(LONG * pace))
        changes(session, LOSS)
        session.press("2")
        session.wait_for("share", PATIENCE)
        changes(session, LAYER_VALUE)
        session.press("3")
        session.wait_for(HOST.search, PATIENCE)
        changes(session, HOST)
        session.press("q")
        assert session.wait_exit(PATIENCE) == 0
        assert f"wmdd-tui attach {run.id}" in session.text, "leaving says how to come back"

    assert rundir.state_of(run) in rundir.ALIVE
    assert rundir.identified(run) is not None, "the engine itself is there, not only its files"

    with opened(home, "attach") as session:
        session.wait_for("cockpit", PATIENCE)
        session.wait_for(lambda text: "finished" in text and re.search(r"student \d+\.\d\d %", text), WHOLE_RUN)
        session.press("4")
        session.wait_for("class 1/10", PATIENCE)
        session.press("enter")
        session.wait_for(lambda text: "image 1/3" in text and text.count("▀") > HALF_BLOCKS, PATIENCE)
        session.press("right")
        session.wait_for("image 2/3", PATIENCE)
        session.press("q")
        assert session.wait_exit(PATIENCE) == 0
    assert rundir.state_of(run) == "finished"
    assert "Traceback" not in run.console_file.read_text()


def test_a_killed_dashboard_disturbs_no_run(home: Path, pace: float) -> None:
    with opened(home) as session:
        run = launched_from_the_form(session, "orphan", int(SHORT * pace))
        changes(session, LOSS)
        session.process.send_signal(signal.SIGKILL)
        assert session.wait_exit(PATIENCE) == -signal.SIGKILL
    assert rundir.state_of(run) in (*rundir.ALIVE, "finished")

    with opened(home) as session:
        session.wait_for(lambda text: re.search(r"finished\s+orphan", text), WHOLE_RUN)
        session.press("enter")
        session.wait_for(lambda text: "finished" in text and re.search(r"student \d+\.\d\d %", text), PATIENCE)
