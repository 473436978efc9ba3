"""Every action of the table, by its key. The generic test covers all; those below look at what came of it."""

from __future__ import annotations

from typing import Any

import pytest
from test_screens import record, text_of, until
from textual.app import App
from textual.widgets import DataTable, Input

from engine.rundir import RunDir
from wmdd_tui import actions
from wmdd_tui.actions import ACTIONS, Action
from wmdd_tui.app import Settings, WmddApp
from wmdd_tui.screens.compare import CompareScreen
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.new_run import NewRunScreen
from wmdd_tui.screens.paste import Paste
from wmdd_tui.screens.runs import RunsScreen

SCREENS: dict[str, type[Any]] = {
    "app": WmddApp,
    "runs": RunsScreen,
    "new": NewRunScreen,
    "monitor": MonitorScreen,
    "compare": CompareScreen,
}


async def open_scope(app: WmddApp, pilot: Any, scope: str) -> None:
    """Bring the screen of a scope up over one recorded run."""
    runs = app.screen
    assert isinstance(runs, RunsScreen)
    await until(pilot, lambda: runs.query_one("#table", DataTable).row_count == 1)
    run = app.watched
    assert run is not None
    if scope == "new":
        await app.push_screen(NewRunScreen())
    elif scope == "monitor":
        await app.push_screen(MonitorScreen(run))
    elif scope == "compare":
        await app.push_screen(CompareScreen([run, run]))
    await pilot.pause()


@pytest.mark.parametrize("action", [one for one in ACTIONS if one.name != "runs.open"], ids=lambda one: one.name)
async def test_key_calls_its_action(action: Action, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[Any, ...]] = []
    name = "action_" + action.action.partition("(")[0]
    owner = App if action.id == "command_palette" else SCREENS[action.scope]
    assert hasattr(owner, name), f"{action.name} has no method {name}"
    app = WmddApp(run=record())
    async with app.run_test(size=(80, 24)) as pilot:
        await open_scope(app, pilot, action.scope)
        monkeypatch.setattr(owner, name, lambda _self, *arguments: called.append(arguments))
        for key in action.key.split(","):
            await pilot.press(key)
        await pilot.pause()
    assert len(called) == len(action.key.split(","))


def test_keys_are_unique_within_a_screen() -> None:
    for scope in ("runs", "new", "monitor", "compare"):
        keys = [key for one in ACTIONS if one.scope in (scope, "app") for key in one.key.split(",")]
        assert len(keys) == len(set(keys))


def test_markdown_names_every_action() -> None:
    page = actions.markdown()
    assert all(action.help in page for action in ACTIONS)


async def test_readonly_disables_what_changes_runs() -> None:
    app = WmddApp(run=record(), settings=Settings(readonly=True))
    async with app.run_test(size=(80, 24)) as pilot:
        for scope in ("runs", "new", "monitor"):
            if scope != "runs":
                app.pop_screen() if scope == "monitor" else None
            await open_scope(app, pilot, scope)
            for action in actions.of_scope(scope):  # type: ignore[arg-type]
                allowed = app.screen.check_action(action.action.partition("(")[0], ())
                assert bool(allowed) != action.changes_run


async def test_open_help_back_and_leave() -> None:
    app = WmddApp(run=record())
    async with app.run_test(size=(80, 24)) as pilot:
        await open_scope(app, pilot, "runs")
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, MonitorScreen)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        await pilot.press("escape", "escape")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0


async def test_mark_and_compare() -> None:
    record("alpha")
    record("beta")
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        await pilot.press("space", "down", "space", "C")
        await pilot.pause()
        assert isinstance(app.screen, CompareScreen)
        differences = app.screen.query_one("#differences", DataTable)
        await until(pilot, lambda: differences.row_count > 0)
        assert str(differences.get_row_at(0)[0]) == "name"
        await pilot.press("t")
        await pilot.pause()
        assert "ce loss" in text_of(app, "#title")


async def test_delete_asks_first_and_deletes() -> None:
    run = record()
    app = WmddApp(run=run)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_scope(app, pilot, "runs")
        await pilot.press("delete")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        await pilot.pause()
        assert run.path.is_dir()
        await pilot.press("delete", "y")
        await pilot.pause()
        await until(pilot, lambda: app.screen.has_class("-empty"))
    assert not run.path.exists()


async def test_alive_runs_are_not_deleted_but_stopped_then_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    run = record()
    monkeypatch.setattr("wmdd_tui.screens.control.state_of", lambda _run: "running")
    monkeypatch.setattr("wmdd_tui.screens.runs.rundir.state_of", lambda _run: "running")
    killed: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.screens.control.kill", lambda one: killed.append(one) or True)
    app = WmddApp(run=run)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_scope(app, pilot, "monitor")
        await pilot.press("p")
        assert (run.control / "pause").exists()
        await pilot.press("x", "y")
        await pilot.pause()
        assert (run.control / "stop").exists()
        await pilot.press("x", "y")
        await pilot.pause()
        assert [one.id for one in killed] == [run.id]
        await pilot.press("escape", "delete")
        await pilot.pause()
    assert run.path.is_dir()


async def test_demo_resume_and_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.launch", launched.append)
    run = record(end="stopped")
    app = WmddApp(run=run)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_scope(app, pilot, "runs")
        await pilot.press("r")
        await pilot.pause()
        assert [one.id for one in launched] == [run.id]
        await pilot.press("e")
        await pilot.pause()
        assert isinstance(app.screen, NewRunScreen)
        assert app.screen.query_one("#field-name", Input).value == "recorded"
        await pilot.press("escape", "d")
        await pilot.pause()
        assert isinstance(app.screen, MonitorScreen)
    assert len(launched) == 2


async def test_monitor_keys_arrange_panels() -> None:
    app = WmddApp("monitor", record())
    async with app.run_test(size=(200, 60)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await pilot.pause()
        shown = [panel.id for panel in screen.query(".panel") if panel.display]
        assert len(shown) == 6
        await pilot.press("3", "m")
        await pilot.pause()
        assert [panel.id for panel in screen.query(".panel") if panel.display] == ["panel-memory"]
        await pilot.press("m", "3")
        await pilot.pause()
        assert "panel-memory" not in [panel.id for panel in screen.query(".panel") if panel.display]
        await pilot.press("space")
        assert screen.frozen
        await pilot.press("y", "s", "plus", "h", "l", "minus", "0", "left", "right", "c", "f", "a")
        await pilot.pause()


async def test_paste_fills_the_form() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("f4")
        await pilot.pause()
        assert isinstance(app.screen, Paste)
        app.screen.query_one("#pasted").text = "wmdd-tui run --preset digits --ipc 3"  # type: ignore[attr-defined]
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert app.screen.query_one("#field-ipc", Input).value == "3"
