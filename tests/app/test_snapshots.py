"""Every screen as text and styles, at three sizes, in colour, without colour and in ASCII.

``make snapshots`` writes what the screens show now to ``tests/app/snapshots``; look at the change before keeping it.
"""

from __future__ import annotations

import os
import re
import time
from collections import namedtuple
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from piloted import until
from screen_text import Shot, differences, from_text, shot_of, to_text
from staged_runs import NOW, add_distribution, staged
from textual.command import CommandList
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from engine import rundir
from engine.rundir import RunDir
from wmdd_tui.app import Settings, WmddApp
from wmdd_tui.screens.compare import CompareScreen
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.store.devices import Device
from wmdd_tui.store.space import Room
from wmdd_tui.widgets.key_bar import KeyBar

pytestmark = pytest.mark.timeout(1200)  # a busy machine is ten times slower than a quiet one

SNAPSHOTS = Path(__file__).parent / "snapshots"
SMALL, MEDIUM, LARGE = SIZES = ((80, 24), (120, 40), (200, 60))
#: The order of sizes in each mode: every size is once the one that an app is opened at, and once come to from another.
MODES = {"colour": (SMALL, MEDIUM, LARGE), "no-color": (LARGE, SMALL, MEDIUM), "ascii": (MEDIUM, LARGE, SMALL)}
#: Workers that go on as long as their screen is there.
ENDLESS = {"runs", "reader"}
PANEL_KEYS = {
    "2": "layers", "3": "memory", "4": "images", "5": "log", "6": "evaluation", "7": "distribution-missing",
}  # fmt: skip
#: What is stored, and at which sizes: a panel alone fills the small screen, the larger ones show all panels.
STORED = {
    **dict.fromkeys(("runs-empty", "runs", "help", "palette", "new-run"), SIZES),
    **dict.fromkeys(("monitor", "monitor-finished", "monitor-failed", "compare", "compare-images"), SIZES),
    **dict.fromkeys((f"monitor-{panel}" for panel in ("layers", "memory", "images", "log", "evaluation")), (SMALL,)),
    "monitor-distribution": SIZES,
    **dict.fromkeys(("monitor-distribution-one", "monitor-distribution-missing", "monitor-classes"), (SMALL,)),
    **dict.fromkeys(("new-run-wrong", "monitor-stop"), (SMALL,)),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the screen is drawn."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    if request.param == "no-color":
        monkeypatch.setenv("NO_COLOR", "1")
    return str(request.param)


@pytest.fixture(autouse=True)
def _same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clock, time zone, cursor, machine and terminal stand still."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.delenv("WMDD_DATA", raising=False)
    monkeypatch.setattr(Input, "cursor_blink", False)
    devices = [Device("cpu", "cpu", "8 cores", 12 << 30, 16 << 30)]
    monkeypatch.setattr("wmdd_tui.screens.new_run.list_devices", lambda: devices)
    monkeypatch.setattr("wmdd_tui.store.estimate.room_at", lambda folder: Room(folder, 1 << 39))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)))
    usage = namedtuple("usage", "total used free")(1 << 40, 1 << 39, 1 << 39)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def runs(wmdd_home: Path) -> Iterator[dict[str, RunDir]]:
    """Runs in every state."""
    with staged(wmdd_home / "runs") as found:
        yield found


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether snapshots are to be written."""
    return bool(request.config.getoption("--update-snapshots"))


@asynccontextmanager
async def opened(mode: str, screen: str = "runs", run: RunDir | None = None) -> AsyncIterator[Pilot[int]]:
    """The app at the first size of the mode."""
    app = WmddApp(screen, run, settings=Settings(ascii=mode == "ascii"))
    async with app.run_test(size=MODES[mode][0]) as pilot:
        yield pilot


async def resized(pilot: Pilot[int], size: tuple[int, int]) -> None:
    """Give the terminal a size."""
    if pilot.app.size != size:
        await pilot.resize_terminal(*size)


async def settled(pilot: Pilot[int]) -> Shot:
    """The screen once its keys are shown, no worker is to deliver anything, and two looks at it agree."""
    screen = pilot.app.screen
    await until(pilot, lambda: all(bar.keys for bar in screen.query(KeyBar)))
    await until(pilot, lambda: all(one.is_finished or one.group in ENDLESS for one in pilot.app.workers))
    before = None
    while before != (now := shot_of(pilot.app)):
        before = now
        await pilot.pause()
    return now


async def compare_with_stored(pilot: Pilot[int], name: str, mode: str, update: bool) -> None:
    """Store the screen, or fail with what differs from the stored one."""
    columns, rows = pilot.app.size
    assert (columns, rows) in STORED[name]
    now = await settled(pilot)
    file = SNAPSHOTS / f"{name}.{columns}x{rows}.{mode}.txt"
    if update:
        file.parent.mkdir(exist_ok=True)
        file.write_text(to_text(now), encoding="utf-8")
        return
    if not file.is_file():
        pytest.fail(f"{file.name} is missing; `make snapshots` writes it", pytrace=False)
    if found := differences(from_text(file.read_text(encoding="utf-8")), now):
        advice = "if this is meant: `make snapshots`, then look at the change"
        pytest.fail(f"{file.name} differs; {advice}\n{found}", pytrace=False)


async def test_no_runs(mode: str, update: bool) -> None:
    async with opened(mode) as pilot:
        await until(pilot, lambda: pilot.app.screen.has_class("-empty"))
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, "runs-empty", mode, update)


async def test_runs_help_and_palette(mode: str, update: bool, runs: dict[str, RunDir]) -> None:
    async with opened(mode) as pilot:
        home = pilot.app.screen
        await until(pilot, lambda: home.query_one("#table", DataTable).row_count == len(runs))
        await pilot.press("down", "down", "P", "space", "down")
        facts = home.query_one("#facts", Static)
        await until(pilot, lambda: str(facts.content).startswith(runs["live"].id))
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, "runs", mode, update)
            await pilot.press("question_mark")
            await compare_with_stored(pilot, "help", mode, update)
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is home)
            await pilot.press("ctrl+p")
            await until(pilot, lambda: any(found.option_count > 5 for found in pilot.app.screen.query(CommandList)))
            await compare_with_stored(pilot, "palette", mode, update)
            await pilot.press("escape")
            await until(pilot, lambda: pilot.app.screen is home)


async def test_new_run(mode: str, update: bool) -> None:
    async with opened(mode, "new") as pilot:
        await pilot.press(*"mine")
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, "new-run", mode, update)
        await resized(pilot, SMALL)
        field = pilot.app.screen.query_one("#field-ipc", Input)
        field.focus()
        field.value = "0"
        await until(pilot, lambda: pilot.app.screen.query_one("#row-ipc").has_class("-wrong"))
        await compare_with_stored(pilot, "new-run-wrong", mode, update)


async def read(pilot: Pilot[int], state: str) -> None:
    """Wait until the monitor has read its run."""
    screen = pilot.app.screen
    assert isinstance(screen, MonitorScreen)
    await until(pilot, lambda: screen.state == state and screen.view.share == 1)


async def test_monitor_of_a_live_run(mode: str, update: bool, runs: dict[str, RunDir]) -> None:
    async with opened(mode, "monitor", runs["live"]) as pilot:
        await read(pilot, "running")
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, "monitor", mode, update)
        await resized(pilot, SMALL)
        for key, panel in PANEL_KEYS.items():
            await pilot.press(key)
            await compare_with_stored(pilot, f"monitor-{panel}", mode, update)
        await pilot.press("x")
        await compare_with_stored(pilot, "monitor-stop", mode, update)


@pytest.mark.parametrize(("name", "state", "panel"), [("strong-bn", "finished", "6"), ("diverged", "failed", "1")])
async def test_monitor_of_a_run_that_has_ended(
    mode: str, update: bool, runs: dict[str, RunDir], name: str, state: str, panel: str
) -> None:
    async with opened(mode, "monitor", runs[name]) as pilot:
        await read(pilot, state)
        await pilot.press(panel)
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, f"monitor-{state}", mode, update)


async def test_monitor_of_a_distribution(mode: str, update: bool, runs: dict[str, RunDir]) -> None:
    add_distribution(runs["plain"])
    async with opened(mode, "monitor", runs["plain"]) as pilot:
        await read(pilot, "finished")
        await pilot.press("7", "m")
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, "monitor-distribution", mode, update)
        await resized(pilot, SMALL)
        await pilot.press("down", "right")
        await compare_with_stored(pilot, "monitor-distribution-one", mode, update)
        await pilot.press("C")
        await compare_with_stored(pilot, "monitor-classes", mode, update)


async def test_compare(mode: str, update: bool, runs: dict[str, RunDir]) -> None:
    async with opened(mode) as pilot:
        screen = CompareScreen([runs["strong-bn"], runs["plain"]])
        await pilot.app.push_screen(screen)
        await until(pilot, lambda: screen.query_one("#differences", DataTable).row_count > 0)
        for size in MODES[mode]:
            await resized(pilot, size)
            await compare_with_stored(pilot, "compare", mode, update)
            await pilot.press("i")
            await compare_with_stored(pilot, "compare-images", mode, update)
            await pilot.press("i")


def test_snapshots_are_those_of_the_tests_and_of_no_machine() -> None:
    wanted = {
        f"{name}.{columns}x{rows}.{mode}.txt"
        for name, sizes in STORED.items()
        for columns, rows in sizes
        for mode in MODES
    }
    assert {file.name for file in SNAPSHOTS.iterdir()} == wanted
    told = "\n".join(file.read_text(encoding="utf-8") for file in SNAPSHOTS.iterdir())
    assert not re.findall(r"(?<![\w.~])/(?:home|root|tmp|usr|var|work|Users)\b.*", told)
    assert str(rundir.home()) not in told


def test_ascii_snapshots_hold_nothing_else() -> None:
    for file in SNAPSHOTS.glob("*.ascii.txt"):
        assert "".join(from_text(file.read_text(encoding="utf-8")).rows).isascii(), file.name


def test_snapshots_without_colour_hold_greys_alone() -> None:
    for file in SNAPSHOTS.glob("*.no-color.txt"):
        for colour in re.findall(r"#(\w{6})", "\n".join(file.read_text(encoding="utf-8").split("--- styles")[1:])):
            assert colour[:2] == colour[2:4] == colour[4:], f"{file.name}: #{colour}"


def test_a_difference_is_told_by_row_and_cell() -> None:
    one = Shot(("runs", "same"), ((("red", 4),), (("plain", 2), ("red bold", 2))))
    other = Shot(("ruins", "same"), ((("red", 5),), (("plain", 4),)))
    assert from_text(to_text(one)) == one
    told = differences(one, other)
    assert "-runs\n+ruins" in told
    assert "row 2, cells 3-4: red bold  →  plain" in told
    assert differences(one, one) == ""
