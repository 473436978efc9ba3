"""The queue on the screens: places on Runs, moving, removing, and the choices of the form. No engine is started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from piloted import text_of, until
from textual.widgets import DataTable, Select

from engine import events, presets, queueing, rundir
from engine.config import override
from engine.control import Control
from engine.devices import Gpu
from engine.rundir import RunDir
from wmdd_tui.app import Settings, WmddApp
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.new_run import NewRunScreen
from wmdd_tui.store.devices import Device, offered


def a_run(name: str) -> RunDir:
    return rundir.create(override(presets.get("digits"), [f"name={name}", 'run.device="cpu"']))


@pytest.fixture
def line() -> Iterator[list[RunDir]]:
    """One run at work and three that wait, each with its lock held, as their engines would."""
    busy, *waiting = (a_run(name) for name in ("busy", "one", "two", "three"))
    with ExitStack() as stack:
        stack.enter_context(rundir.hold_lock(busy))
        stack.enter_context(queueing.occupied(busy, lambda _: None, Control(busy)))
        for run in waiting:
            stack.enter_context(rundir.hold_lock(run))
            queueing.submit(run)
            writer = events.Writer(run.events_file)
            writer.write(events.Beat(queued=True))
            writer.close()
        yield waiting


def stages(table: DataTable[object]) -> dict[str, str]:
    return {str(table.get_row_at(row)[2]): str(table.get_row_at(row)[3]) for row in range(table.row_count)}


async def test_queued_runs_show_their_place_and_move(line: list[RunDir]) -> None:
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 4)
        assert {name: stages(table)[name] for name in ("one", "two", "three")} == {
            "one": "#1 on cpu", "two": "#2 on cpu", "three": "#3 on cpu",
        }  # fmt: skip
        assert "queued" in str(table.get_row(line[0].id)[1])
        assert "3 queued" in text_of(app, "#title")
        table.move_cursor(row=list(stages(table)).index("three"))
        await pilot.press("K")
        await until(pilot, lambda: stages(table)["three"] == "#2 on cpu")
        await pilot.press("shift+up")
        await until(pilot, lambda: stages(table)["three"] == "#1 on cpu")
        await pilot.press("J")
        await until(pilot, lambda: stages(table)["one"] == "#1 on cpu")
    assert [place.run_id for place in queueing.places()[1:]] == [line[0].id, line[2].id, line[1].id]


async def test_a_run_at_work_is_not_moved() -> None:
    run = a_run("busy")
    with rundir.hold_lock(run), queueing.occupied(run, lambda _: None, Control(run)):
        app = WmddApp()
        async with app.run_test(size=(80, 24)) as pilot:
            table = app.screen.query_one("#table", DataTable)
            await until(pilot, lambda: table.row_count == 1)
            await pilot.press("J")
            await until(pilot, lambda: any("at work on cpu" in note.message for note in app._notifications))


async def test_removing_asks_and_then_requests_the_stop(line: list[RunDir]) -> None:
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 4)
        table.move_cursor(row=list(stages(table)).index("two"))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: (line[1].control / "stop").exists())
        assert any("leaves the queue" in note.message for note in app._notifications)


async def test_readonly_moves_nothing(line: list[RunDir]) -> None:
    app = WmddApp(settings=Settings(readonly=True))
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 4)
        table.move_cursor(row=list(stages(table)).index("three"))
        await pilot.press("K", "x")
        await pilot.pause()
    assert [place.run_id for place in queueing.places()[1:]] == [run.id for run in line]


async def test_a_stopped_run_resumes_behind_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.enqueue", queued.append)
    run = a_run("stopped")
    writer = events.Writer(run.events_file)
    writer.write(events.End(status="stopped"))
    writer.close()
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("R")
        await pilot.pause()
    assert [one.id for one in queued] == [run.id]


async def test_the_form_queues_on_the_chosen_device(monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.enqueue", queued.append)
    cards = [
        Device("cuda:0", "cuda:3", "Some card", 70 << 30, 80 << 30),
        Device("cpu", "cpu", "2 cores", 1 << 30, 4 << 30),
    ]
    monkeypatch.setattr("wmdd_tui.screens.new_run.list_devices", lambda: cards)
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, NewRunScreen)
        picker: Select[str] = screen.query_one("#pick-device", Select)
        await until(pilot, lambda: len(picker._options) == 4)
        assert "cuda:0: Some card, 70.0 GiB of 80.0 GiB free" in [str(text) for text, _ in picker._options]
        picker.value = "cuda:0"
        screen.query_one("#pick-start", Select).value = "queue"
        await until(pilot, lambda: text_of(app, "#command").endswith("--queue"))
        await until(pilot, lambda: 'run.device="cuda:0"' in text_of(app, "#command"))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert [run.config().run.device for run in queued] == ["cuda:0"]


def test_devices_are_named_as_a_run_sees_them() -> None:
    found = offered([Gpu(2, "GPU-c", "C", 5, 9), Gpu(0, "GPU-a", "A")], 4, 1, 2)
    assert [(one.name, one.key, one.title) for one in found] == [
        ("cuda:0", "cuda:2", "C"), ("cuda:1", "cuda:0", "A"), ("cpu", "cpu", "4 cores"),
    ]  # fmt: skip
