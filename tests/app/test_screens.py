"""The screens at all sizes, with recorded runs and hostile texts."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from piloted import HOSTILE, record, text_of, until
from textual.widgets import DataTable, Input

from engine import events, presets, rundir
from engine.rundir import RunDir
from wmdd_tui.app import Settings, WmddApp, run_app
from wmdd_tui.cli.pasted import read_pasted
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.new_run import NewRunScreen
from wmdd_tui.screens.runs import RunsScreen
from wmdd_tui.store.command_line import command_for
from wmdd_tui.widgets.config_form import errors_by_key, options
from wmdd_tui.widgets.key_bar import KeyBar
from wmdd_tui.widgets.panels import LayerPanel, MetricsPanel

SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", ["runs", "new", "monitor"])
async def test_screens_open_and_survive_resizing(screen: str, size: tuple[int, int]) -> None:
    app = WmddApp(screen, record())
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        for other in ((40, 10), size):
            await pilot.resize_terminal(*other)
            await pilot.pause()
        await until(pilot, lambda: bool(app.screen.query_one(KeyBar).keys))


async def test_keys_at_the_foot_can_be_clicked_and_follow_the_focus() -> None:
    record()
    app = WmddApp()
    async with app.run_test(size=(120, 24)) as pilot:
        bar = app.screen.query_one(KeyBar)
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count == 1)
        await until(pilot, lambda: any(one.title == "New" for one in bar.keys))
        line = bar.render_line(0).text
        assert line.count("Help") == 1, "one entry for the two keys of an action"
        await pilot.press("slash")
        await until(pilot, lambda: "New" not in bar.render_line(0).text)
        await pilot.press("enter")
        await until(pilot, lambda: bar.render_line(0).text == line)
        await pilot.click(KeyBar, offset=(line.index("Help") + 1, 0))
        await until(pilot, lambda: isinstance(app.screen, Help))


async def test_empty_state_says_how_to_start() -> None:
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.has_class("-empty"))
        assert "start the digits demo" in text_of(app, "#empty")


async def test_runs_started_elsewhere_appear_and_hostile_names_are_literal() -> None:
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.screen.has_class("-empty"))
        record("[red]bad[/]")
        app.screen.on_screen_resume()  # type: ignore[attr-defined]
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 1)
        assert "[red]bad[/]" in str(table.get_row_at(0)[2])
        assert "finished" in str(table.get_row_at(0)[1])


async def test_filter_narrows_the_table() -> None:
    record("alpha")
    record("beta")
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        await pilot.press("slash", *"alp")
        await pilot.pause()
        assert table.row_count == 1
        await pilot.press("escape")
        await pilot.pause()
        assert table.row_count == 2


@pytest.mark.parametrize("size", SIZES)
async def test_monitor_replays_a_recorded_run(size: tuple[int, int]) -> None:
    app = WmddApp("monitor", record(end="failed"))
    async with app.run_test(size=size) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "failed")
        assert "student 62.50 %" in text_of(app, "#figures")
        assert "loss 1" in text_of(app, "#figures")
        assert HOSTILE in text_of(app, "#alerts")
        assert "lower recover.lr" in text_of(app, "#alerts")
        for key in "123456":
            await pilot.press(key)
            await pilot.pause()
        assert screen.query_one(MetricsPanel).query_one(DataTable).row_count == 2
        assert "blocks.0.1" in screen.query_one(LayerPanel).as_text() or size != SIZES[0]


async def test_leaving_a_monitor_puts_the_cursor_on_its_run() -> None:
    attached = record("older")
    newer = record("newer")
    app = WmddApp("monitor", attached)
    async with app.run_test(size=(80, 24)) as pilot:
        home, screen = app.screen_stack[0], app.screen
        assert isinstance(home, RunsScreen)
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is home and home.query_one("#table", DataTable).row_count == 2)
        await until(pilot, lambda: home._highlighted() == attached.id)
        assert not home.query_one("#filter").display, "its styles were read, though it was not the first screen shown"
        await pilot.press("k" if home.query_one("#table", DataTable).cursor_row else "j")
        assert home._highlighted() == newer.id
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is home)
        await pilot.pause()
        assert home._highlighted() == newer.id, "only a monitor moves it"


@pytest.mark.parametrize("readonly", [False, True])
async def test_the_foot_of_a_monitor_names_what_its_run_allows(readonly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.launch", launched.append)
    run = record(end="stopped")
    app = WmddApp("monitor", run, settings=Settings(readonly=readonly))
    async with app.run_test(size=(80, 24)) as pilot:
        bar = app.screen.query_one(KeyBar)
        await until(pilot, lambda: "stopped" in text_of(app, "#headline") and bool(bar.keys))
        await until(pilot, lambda: "Stop run" not in bar.render_line(0).text)
        named = bar.render_line(0).text
        assert "Pause run" not in named
        assert ("r Resume" in named) is not readonly
        await pilot.press("r")
        await pilot.pause()
        assert len(launched) == (not readonly)
        with closing(events.Writer(run.events_file)) as writer:
            writer.write(events.Hello(t=time.time(), pid=1))
        with rundir.hold_lock(run):
            await until(pilot, lambda: "running" in text_of(app, "#headline"))
            await until(pilot, lambda: "Resume" not in bar.render_line(0).text)
            assert ("Stop run" in bar.render_line(0).text) is not readonly


async def test_a_run_that_has_written_nothing_has_no_empty_figures() -> None:
    app = WmddApp("monitor", rundir.create(presets.get("digits")))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "starting" in text_of(app, "#headline"))
        assert "·  ·" not in text_of(app, "#headline")


async def test_monitor_of_a_vanished_run_stays_up(tmp_path: Path) -> None:
    app = WmddApp("monitor", RunDir(tmp_path / "gone"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "vanished")
        assert "vanished" in text_of(app, "#headline")


async def test_form_launches_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.launch", launched.append)
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press(*"mine")
        await pilot.pause()
        assert "name=" in text_of(app, "#command")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert launched[0].config().name == "mine"


async def test_form_refuses_what_the_model_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.launch", launched.append)
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.screen.query_one("#field-ipc", Input).value = "0"
        await pilot.pause()
        assert app.screen.query_one("#row-ipc").has_class("-wrong")
        assert "ipc = 0" in text_of(app, "#problem")
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert isinstance(app.screen, NewRunScreen)
    assert not launched


async def test_form_opens_every_section_and_preset() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        for section in app.screen.query("Collapsible"):
            section.collapsed = False  # type: ignore[attr-defined]
            await pilot.pause()
        assert len(app.screen.query("FieldRow")) == len(options())
        app.screen.query_one("#pick-preset").value = "digits-sre2l"  # type: ignore[attr-defined]
        await pilot.pause()
        assert "sre2l" in text_of(app, "#toml")
        assert text_of(app, "#command") == "$ wmdd-tui run --preset digits-sre2l"


def test_command_round_trip() -> None:
    config = read_pasted("wmdd-tui run --preset digits --set recover.r_bn=3.5 --name 'a b' --ipc 2").config
    assert (config.recover.r_bn, config.name, config.ipc) == (3.5, "a b", 2)
    assert read_pasted(command_for(config, "digits")).config == config


def test_errors_find_their_field() -> None:
    from engine.config import from_dict
    from engine.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        from_dict({"ipc": 0, "teacher": {"arch": "resnet18"}})
    assert "ipc" in errors_by_key(caught.value)


async def test_readonly_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.launch", launched.append)
    app = WmddApp(settings=Settings(readonly=True))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("d", "n")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)
    assert not launched


def test_without_a_terminal_the_exit_code_is_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app() == 2
    assert "`wmdd-tui runs`" in capsys.readouterr().err
