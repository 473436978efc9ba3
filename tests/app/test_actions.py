"""Every action of the table: its key is pressed, and what comes of it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from piloted import record, text_of, until
from test_queue import line, stages  # noqa: F401  (line is a fixture)
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import DataTable, Input, Log

from engine import rundir
from engine.rundir import RunDir
from wmdd_tui import actions
from wmdd_tui.actions import ACTIONS, PANELS
from wmdd_tui.app import Settings, WmddApp
from wmdd_tui.screens.choose import Choose
from wmdd_tui.screens.choose_classes import ChooseClasses
from wmdd_tui.screens.compare import CompareScreen
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.new_run import NewRunScreen
from wmdd_tui.screens.paste import Paste
from wmdd_tui.screens.runs import RunsScreen
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.panels import LayerPanel

SIZE = (120, 40)


@dataclass
class Bench:
    """A dashboard over two recorded runs; ``run`` is the highlighted one. No engine is started, no chart drawn."""

    app: WmddApp
    pilot: Pilot[int]
    run: RunDir
    other: RunDir
    started: list[str] = field(default_factory=list)
    plotted: list[Path] = field(default_factory=list)

    @property
    def screen(self) -> Screen[object]:
        return self.app.screen

    def table(self) -> DataTable[Any]:
        return self.screen.query_one("#table", DataTable)

    def chart(self) -> str:
        """The text of the first chart that is shown."""
        chart = next(one for one in self.screen.query(LossChart) if one.region)
        return "\n".join(chart.render_line(y).text for y in range(chart.size.height))

    def log(self) -> Log:
        return self.screen.query_one(Log)

    def file(self, name: str) -> Path:
        """A file that the dashboard writes for the user."""
        return rundir.home() / "exports" / self.run.id / name


Seen = Callable[[Bench], object]


@dataclass(frozen=True)
class Effect:
    """What is true after the key and was not before; ``first`` are keys pressed before, ``world`` how the runs are."""

    seen: Seen
    first: tuple[str, ...] = ()
    world: str = "finished"


def shows(kind: type[Screen[Any]]) -> Seen:
    return lambda bench: isinstance(bench.screen, kind)


def says(selector: str, part: str) -> Seen:
    return lambda bench: part in text_of(bench.app, selector)


def draws(part: str) -> Seen:
    return lambda bench: part in bench.chart()


def current(panel: str) -> Seen:
    return lambda bench: bench.screen.query_one(f"#panel-{panel}").has_class("-current")


def typing(bench: Bench) -> bool:
    return isinstance(bench.app.focused, Input) and bench.app.focused.id == "filter"


def asked(what: str) -> Seen:
    return lambda bench: (bench.run.control / what).exists()


CHART: dict[str, Effect] = {
    "scale": Effect(draws("log")),
    "smooth": Effect(draws("smoothed")),
    "zoom_in": Effect(draws("15 iterations")),
    "zoom_out": Effect(draws("20 iterations"), ("plus",)),
    "reset": Effect(draws("20 iterations"), ("plus",)),
    "pan_left": Effect(draws("12 iterations"), ("plus",)),
    "pan_right": Effect(draws("18 iterations"), ("plus",)),
    "cursor_left": Effect(draws(", at ")),
    "cursor_right": Effect(draws(", at ")),
    "export": Effect(lambda bench: {path.suffix for path in bench.plotted} == {".svg", ".png", ".csv"}),
}
EFFECTS: dict[str, Effect] = {
    "app.help": Effect(shows(Help)),
    "app.leave": Effect(lambda bench: bench.app.return_code == 0),
    "app.back": Effect(shows(RunsScreen), ("question_mark",)),
    "app.command_palette": Effect(shows(CommandPalette)),
    "app.toggle_theme": Effect(lambda bench: not bench.app.current_theme.dark),
    "app.down": Effect(lambda bench: bench.table().cursor_row == 1),
    "app.up": Effect(lambda bench: bench.table().cursor_row == 0, ("j",)),
    "runs.open": Effect(shows(MonitorScreen)),
    "runs.new": Effect(shows(NewRunScreen)),
    "runs.demo": Effect(lambda bench: shows(MonitorScreen)(bench) and len(bench.started) == 1),
    "runs.filter": Effect(typing),
    "runs.sort": Effect(says("#title", "order: name")),
    "runs.mark": Effect(says("#title", "1 marked")),
    "runs.pin": Effect(says("#title", "1 pinned")),
    "runs.export": Effect(shows(Choose)),
    "runs.compare": Effect(shows(CompareScreen), ("space", "j", "space")),
    "runs.duplicate": Effect(
        lambda bench: (
            shows(NewRunScreen)(bench) and bench.screen.query_one("#field-name", Input).value == bench.run.config().name
        )
    ),
    "runs.resume": Effect(lambda bench: bench.started == [f"launch {bench.run.id}"], world="stopped"),
    "runs.resume_queued": Effect(lambda bench: bench.started == [f"enqueue {bench.run.id}"], world="stopped"),
    "runs.pause": Effect(asked("pause"), world="running"),
    "runs.stop": Effect(shows(Confirm), world="running"),
    "runs.sooner": Effect(lambda bench: str(bench.table().get_row(bench.run.id)[3]) == "#1 on cpu", world="queued"),
    "runs.later": Effect(lambda bench: str(bench.table().get_row(bench.run.id)[3]) == "#3 on cpu", world="queued"),
    "runs.delete": Effect(shows(Confirm)),
    "new.launch": Effect(lambda bench: shows(MonitorScreen)(bench) and len(bench.started) == 1),
    "new.check": Effect(says("#hint", "ready on some card")),
    "new.preview": Effect(lambda bench: bench.screen.has_class("-folded")),
    "new.paste": Effect(shows(Paste)),
    "new.copy": Effect(lambda bench: bench.app.clipboard.startswith("wmdd-tui run --preset digits")),
    **{f"monitor.{panel}": Effect(current(panel)) for panel in PANELS},
    "monitor.losses": Effect(lambda bench: not bench.screen.query_one("#panel-losses").display),
    "monitor.maximise": Effect(lambda bench: sum(panel.display for panel in bench.screen.query(".panel")) == 1),
    "monitor.open": Effect(lambda bench: bench.screen.query_one(LayerPanel).query_one(LossChart).display, ("2",)),
    "monitor.term": Effect(lambda bench: "CE" not in bench.chart()),
    "monitor.sort": Effect(
        lambda bench: bench.screen.query_one(LayerPanel).as_text().splitlines()[1].startswith("[red]x")
    ),
    "monitor.classes": Effect(shows(ChooseClasses)),
    "monitor.filter": Effect(typing),
    "monitor.follow": Effect(lambda bench: not bench.log().auto_scroll),
    "monitor.wrap": Effect(lambda bench: bench.log().line_count > 3),
    "monitor.copy": Effect(lambda bench: bench.app.clipboard.startswith("total\t")),
    "monitor.save": Effect(lambda bench: bench.file("losses.txt").is_file()),
    "monitor.freeze": Effect(says("#headline", "FROZEN")),
    "monitor.dismiss_alerts": Effect(lambda bench: text_of(bench.app, "#alerts") == ""),
    "monitor.pause": Effect(asked("pause"), world="running"),
    "monitor.stop": Effect(shows(Confirm), world="running"),
    "monitor.resume": Effect(lambda bench: bench.started == [f"launch {bench.run.id}"], world="stopped"),
    **{f"monitor.{name}": effect for name, effect in CHART.items()},
    "compare.term": Effect(says("#title", "ce loss")),
    "compare.images": Effect(lambda bench: bench.screen.has_class("-images")),
    **{f"compare.{name}": effect for name, effect in CHART.items()},
}


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two runs in the state that an effect asks for."""
    kind: str = getattr(request, "param", "finished")
    if kind == "queued":
        request.getfixturevalue("line")
    else:
        for name in ("alpha", "beta"):
            run = record(name, "stopped" if kind == "stopped" else "finished")
            first, rest = run.events_file.read_bytes().split(b"\n", 1)
            wide = b'{"kind":"log","t":1,"message":"' + b"wide " * 60 + b'"}'
            run.events_file.write_bytes(b"\n".join((first, wide, rest)))
    if kind == "running":
        monkeypatch.setattr("wmdd_tui.screens.control.state_of", lambda _run: "running")
    return kind


async def opened(app: WmddApp, pilot: Pilot[int], scope: str, world: str) -> Bench:
    """The screen of a scope over the runs there are."""
    runs = app.screen
    assert isinstance(runs, RunsScreen)
    table = runs.query_one("#table", DataTable)
    await until(pilot, lambda: table.row_count == (4 if world == "queued" else 2))
    if world == "queued":
        await until(pilot, lambda: stages(table).get("two") == "#2 on cpu")
        table.move_cursor(row=list(stages(table)).index("two"))
    keys = [str(row.value) for row in table.rows]
    highlighted = keys[table.cursor_row]
    run, other = (RunDir(rundir.runs_root() / id) for id in (highlighted, next(k for k in keys if k != highlighted)))
    if scope == "new":
        await app.push_screen(NewRunScreen())
    elif scope == "monitor":
        monitor = MonitorScreen(run)
        await app.push_screen(monitor)
        await until(pilot, lambda: monitor.state in ("finished", "stopped"))
    elif scope == "compare":
        await app.push_screen(CompareScreen([run, other]))
        await until(pilot, lambda: app.screen.query_one("#results", DataTable).row_count > 0)
    await pilot.pause()
    return Bench(app, pilot, run, other)


CASES = [(one, key) for one in ACTIONS for key in one.key.split(",")]


@pytest.mark.parametrize(
    ("world", "name", "scope", "key"),
    [(EFFECTS[one.name].world if one.name in EFFECTS else "finished", one.name, one.scope, key) for one, key in CASES],
    ids=[f"{one.name}-{key}" for one, key in CASES],
    indirect=["world"],
)
async def test_the_key_has_its_effect(
    world: str, name: str, scope: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in EFFECTS, f"say in EFFECTS what comes of the key of {name}"
    effect = EFFECTS[name]
    app = WmddApp()
    async with app.run_test(size=SIZE) as pilot:
        bench = await opened(app, pilot, scope, world)
        for start in ("launch", "enqueue"):
            monkeypatch.setattr(f"wmdd_tui.app.{start}", lambda run, how=start: bench.started.append(f"{how} {run.id}"))
        monkeypatch.setattr("wmdd_tui.store.figures.plot", lambda _runs, path, **_: bench.plotted.append(path))
        monkeypatch.setattr("wmdd_tui.screens.new_run.check", lambda _config: {"ok": True, "device": "some card"})
        for before in effect.first:
            await pilot.press(before)
            await pilot.pause()
        assert not effect.seen(bench), "true before the key"
        await pilot.press(key)
        await until(pilot, lambda: bool(effect.seen(bench)))


def test_every_effect_is_of_an_action() -> None:
    assert set(EFFECTS) == {action.name for action in ACTIONS}


def test_keys_are_unique_within_a_screen() -> None:
    for scope in ("runs", "new", "monitor", "compare"):
        keys = [key for one in ACTIONS if one.scope in (scope, "app") for key in one.key.split(",")]
        assert len(keys) == len(set(keys))


def test_markdown_names_every_action() -> None:
    page = actions.markdown()
    assert all(action.help in page for action in ACTIONS)


async def test_readonly_disables_what_changes_runs(world: str) -> None:
    app = WmddApp(settings=Settings(readonly=True))
    async with app.run_test(size=SIZE) as pilot:
        for scope in ("runs", "new", "monitor", "compare"):
            if scope != "runs":
                await opened(app, pilot, scope, world)
            for action in actions.of_scope(scope):  # type: ignore[arg-type]
                allowed = app.screen.check_action(action.action.partition("(")[0], ())
                assert bool(allowed) != action.changes_run
            if scope != "runs":
                await app.pop_screen()


async def test_comparing_needs_two_marked_runs(world: str) -> None:
    app = WmddApp()
    async with app.run_test(size=SIZE) as pilot:
        bench = await opened(app, pilot, "runs", world)
        await pilot.press("space", "C")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)
        assert any("two or more" in note.message for note in app._notifications)
        await pilot.press("down", "space", "C")
        await pilot.pause()
        differences = bench.screen.query_one("#differences", DataTable)
        await until(pilot, lambda: differences.row_count > 0)
        assert str(differences.get_row_at(0)[0]) == "name"


async def test_delete_asks_first_and_deletes() -> None:
    run = record()
    app = WmddApp(run=run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count == 1)
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
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("x", "y")
        await pilot.pause()
        assert (run.control / "stop").exists()
        await pilot.press("x", "y")
        await pilot.pause()
        assert [one.id for one in killed] == [run.id]
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.query_one("#table", DataTable).row_count == 1)
        await pilot.press("delete")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)
    assert run.path.is_dir()


async def test_hidden_panels_come_back() -> None:
    app = WmddApp("monitor", record())
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.pause()
        panels = app.screen.query(".panel")
        assert [panel.id for panel in panels if not panel.display] == ["panel-distribution"]
        await pilot.press("7")
        await pilot.pause()
        assert all(panel.display for panel in panels)
        await pilot.press("3", "3")
        await pilot.pause()
        assert [panel.id for panel in panels if not panel.display] == ["panel-memory"]
        await pilot.press("3")
        await pilot.pause()
        assert all(panel.display for panel in panels)


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
