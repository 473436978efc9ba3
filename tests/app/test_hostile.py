"""Whatever stands in a run directory is shown as what it is; the dashboard stays up and answers keys.

Also: terminals that change their size while something is selected, and programs that are no terminal.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from piloted import record, text_of, until
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, OptionList, TextArea

from engine import events, presets, rundir
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp
from wmdd_tui.screens.choose import Choose
from wmdd_tui.screens.compare import CompareScreen
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.new_run import NewRunScreen
from wmdd_tui.screens.paste import Paste
from wmdd_tui.screens.runs import RunsScreen
from wmdd_tui.store.following import read_view
from wmdd_tui.store.reader import CHUNK_BYTES, LONGEST_LINE, EventTail, latest
from wmdd_tui.store.runs import Summaries, summarise
from wmdd_tui.store.view import MOST_STAGES, RunView

LARGE, SMALL = (200, 60), (40, 10)
ORDERS = "\x1b[2J\x07\x9b31m"
MOST = 1 << 53


def lines(*found: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


def hello(**others: Any) -> bytes:
    """The line of an engine that begins to recover one chunk of twenty iterations."""
    return lines({"kind": "hello", "t": 1000.0, "stages": ["recover"], "chunks": 1, "iterations": 20} | others)


#: Lines after a sound beginning, and what the dashboard says of them.
HOSTILE: dict[str, tuple[bytes, str]] = {
    "garbage": (b"\x00\xff\xfe no JSON\n{}\n[]\nnull\n\n" + bytes(range(256)) + b"\n", "damaged lines are left out"),
    "half a line within": (b'{"kind":"iters","chu\n', "1 damaged lines are left out"),
    "brackets without end": (b'{"kind":"beat","x":' + b"[" * 200_000 + b"\n", "1 damaged lines are left out"),
    "a line longer than a piece": (b"x" * (CHUNK_BYTES + 5) + b"\n", "1 damaged lines are left out"),
    "numbers no number can hold": (
        b'{"kind":"iters","chunk":0,"first":0,"total":[1e999]}\n{"kind":"metrics","stage":"train","epoch":1,'
        b'"epochs":1,"top1":1e308}\n{"kind":"beat","t":-5}\n{"kind":"memory","rss":-1,"power":1e300}\n',
        "damaged lines are left out",
    ),
    "an unknown kind": (b'{"kind":"hologram","depth":3}\n', "1 events of kinds this version does not know"),
    "unknown fields": (b'{"kind":"log","message":"new","colour":"blue"}\n', ""),
    "a newer schema": (hello(schema=2), "newer version (schema 2)"),
    "a schema that is a text": (hello(schema="9.1"), "newer version (schema 9.1)"),
    "losses that are no numbers": (
        b'{"kind":"iters","chunk":0,"first":3,"total":["nan","inf","-inf","x"],"ce":["nan"],"bn":[1]}\n',
        "4 non-finite losses, from chunk 0, iteration 3 on",
    ),
    "losses beyond all scales": (
        b'{"kind":"iters","chunk":0,"first":0,"total":[1e308,-1e308,1],"ce":[1e-308],"feature":[-5]}\n'
        b'{"kind":"layers","chunk":0,"iteration":1,"values":[1e-300,"nan"]}\n'
        b'{"kind":"layers","chunk":0,"iteration":2,"values":[1e308,-1e308]}\n',
        "",
    ),
    "a clock that goes back": (
        b'{"kind":"beat","t":90000}\n{"kind":"progress","t":80000,"stage":"recover","done":5,"total":20}\n',
        "the clock went back by 10000 s",
    ),
    "a run without bounds": (hello(chunks=MOST, iterations=MOST), "1 events contradict the run"),
    "chunks without number": (hello(chunks=1 << 40, iterations=1), ""),
    "iterations outside the run": (
        b'{"kind":"iters","chunk":9007199254740992,"first":9007199254740992,"total":[1]}\n',
        "1 events contradict the run",
    ),
    "epochs without end": (
        b'{"kind":"metrics","stage":"train","epoch":9007199254740992,"epochs":9007199254740992,"top1":1}\n',
        "1 events contradict the run",
    ),
    "stages without end": (
        b"".join(b'{"kind":"stage","stage":"s%d","what":"begin"}\n' % n for n in range(2 * MOST_STAGES)),
        "events contradict the run",
    ),
    "pictures from elsewhere": (
        b'{"kind":"image","chunk":0,"iteration":1,"path":"/dev/zero"}\n'
        b'{"kind":"image","chunk":0,"iteration":1,"path":"previews/../../../x.png"}\n'
        b'{"kind":"image","chunk":0,"iteration":1,"path":"a\\u0000b"}\n',
        "3 events contradict the run",
    ),
    "a picture that is none": (b'{"kind":"image","chunk":0,"iteration":1,"path":"config.toml","classes":[7]}\n', ""),
    "orders to the terminal": (
        lines(
            {"kind": "hello", "device": ORDERS, "layers": [ORDERS], "class_names": [ORDERS], "stages": [ORDERS]},
            {"kind": "log", "level": ORDERS, "message": ORDERS},
            {"kind": "stage", "stage": ORDERS, "what": "begin"},
            {"kind": "progress", "stage": ORDERS, "unit": ORDERS, "note": ORDERS, "done": 1, "total": 2},
            {"kind": "layers", "chunk": 0, "iteration": 0, "values": [1]},
            {"kind": "metrics", "stage": ORDERS, "epoch": 1, "epochs": 1},
            {"kind": "end", "status": "failed", "error": ORDERS, "message": ORDERS, "remedy": ORDERS},
        ),
        "",
    ),
    "names without end": (hello(stages=["s" * 100_000], layers=["l" * 100_000], device="d" * 100_000), ""),
}  # fmt: skip


def written(found: bytes, name: str = "hostile") -> RunDir:
    """A run whose engine is gone, with some bytes after a sound beginning."""
    run = rundir.create(presets.get("digits").model_copy(update={"name": name}))
    sound = (
        b'{"kind":"iters","t":1001,"chunk":0,"first":0,"total":[9,8,7],"ce":[1,1,1],"feature":[1,1,1],"bn":[1,1,1]}\n'
    )
    run.events_file.write_bytes(hello() + sound + found)
    return run


def append(run: RunDir, found: bytes) -> None:
    with run.events_file.open("ab") as file:
        file.write(found)


def texts_on(app: WmddApp) -> list[str]:
    """Every piece of text the screen would send to the terminal."""
    update = app.screen._compositor.render_update(full=True)
    return [segment.text for strips in update.strips for strip in strips for segment in strip]  # type: ignore[union-attr]


async def answers_keys(app: WmddApp, pilot: Pilot[int]) -> None:
    """Every panel opens by its number, and nothing but printable text is shown."""
    screen = app.screen
    assert isinstance(screen, MonitorScreen)
    for key, panel in zip("234561", ("layers", "memory", "images", "log", "metrics", "losses"), strict=True):
        await pilot.press(key)
        await pilot.pause()
        assert screen.query_one(f"#panel-{panel}").display, panel
        assert all(text.isprintable() for text in texts_on(app)), panel


# --- monitor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_are_told_as_what_they_are(name: str) -> None:
    found, word = HOSTILE[name]
    view = read_view(written(found))
    assert any(word in alert for alert in view.alerts) if word else not view.alerts
    assert view.losses["total"].last is not None, "what is sound is kept"


async def test_monitor_stays_up_and_answers_keys_whatever_is_written() -> None:
    """One case after the other, each followed by an engine of this version that says so in its log."""
    run = written(b"")
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        for name, (found, _) in HOSTILE.items():
            append(run, found)
            append(run, hello() + lines({"kind": "log", "message": name}))
            await until(pilot, lambda: any(event.message == name for event in screen.view.log))  # noqa: B023
            await answers_keys(app, pilot)
            await pilot.press("y")
        assert "alerts; a dismisses them" in text_of(app, "#alerts")
        assert "loss" in text_of(app, "#figures")


async def test_a_newer_version_is_named_on_the_monitor() -> None:
    app = WmddApp("monitor", written(hello(schema=2)))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "newer version (schema 2); please upgrade" in text_of(app, "#alerts"))
        assert "newer version" in text_of(app, "#headline")
        assert "loss 7" in text_of(app, "#figures"), "what came before is shown"


async def test_a_line_is_shown_once_it_is_whole() -> None:
    run = written(b'{"kind":"metrics","stage":"train","epoch":1,"epochs":1,"to')
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "loss 7" in text_of(app, "#figures"))
        assert "student" not in text_of(app, "#figures")
        append(run, b'p1":42.5}\n')
        await until(pilot, lambda: "student 42.50 %" in text_of(app, "#figures"))
        assert "damaged" not in text_of(app, "#alerts")


async def test_a_file_that_grows_faster_than_it_is_read() -> None:
    """Five megabytes between any two keys, as a writer of 5 MB/s may leave them: 250,000 short lines, or long ones."""
    run = written(b"")
    app = WmddApp("monitor", run)
    long = lines({"kind": "layers", "t": 1002, "chunk": 0, "iteration": 1, "values": [1.25] * 200})
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        for key, panel, line in (("2", "layers", long), ("5", "log", b'{"kind":"beat"}\n'), ("1", "losses", long)):
            append(run, line * ((5 << 20) // len(line)))
            await pilot.press(key)
            assert screen.query_one(f"#panel-{panel}").display
        append(run, lines({"kind": "end", "t": 1003, "status": "finished"}))
        await until(pilot, lambda: screen.state == "finished" and screen.view.end is not None)
        await until(pilot, lambda: "reading" not in text_of(app, "#headline"))


async def test_a_file_that_is_cut_short_is_shown_anew() -> None:
    run = written(b'{"kind":"metrics","stage":"train","epoch":1,"epochs":2,"top1":11}\n')
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: "student 11.00 %" in text_of(app, "#figures"))
        run.events_file.write_bytes(hello())
        await until(pilot, lambda: "cut short or replaced" in text_of(app, "#alerts"))
        assert not screen.view.metrics
        append(run, b'{"kind":"metrics","stage":"train","epoch":1,"epochs":2,"top1":22}\n')
        await until(pilot, lambda: "student 22.00 %" in text_of(app, "#figures"))
        assert len(screen.view.metrics) == 1


async def test_a_run_that_vanishes_leaves_its_last_data() -> None:
    run = record()
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        shutil.rmtree(run.path)
        await until(pilot, lambda: "vanished; the last data stay on screen" in text_of(app, "#alerts"))
        assert "student 62.50 %" in text_of(app, "#figures")
        await answers_keys(app, pilot)
        await pilot.press("p", "x", "E", "c", "escape")
        await pilot.pause()
        assert isinstance(app.screen, RunsScreen)
        assert not run.path.exists(), "nothing was written into a run that is gone"


async def test_folders_in_place_of_files() -> None:
    broken = ("config_file", "events_file", "console_file", "report_file")
    for what in broken:
        file = getattr(record(what), what)
        if file.exists():
            file.unlink()
        file.mkdir()
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == len(broken))
        for _ in broken:
            await pilot.press("enter")
            await settled(app, pilot)
            await answers_keys(app, pilot)
            await pilot.press("escape", "down")
            await pilot.pause()
        assert isinstance(app.screen, RunsScreen)


# --- runs and compare ------------------------------------------------------------------------------------------


async def test_runs_and_compare_over_hostile_runs() -> None:
    """All of them in one list: each is highlighted once, all are compared, one vanishes meanwhile."""
    for name, (found, _) in HOSTILE.items():
        written(found, name)
    broken = record("broken")
    broken.config_file.write_bytes(b"\xff\x1b[2J = [")
    odd = rundir.runs_root() / "odd\x1b[2Jname"
    odd.mkdir()
    (odd / "config.toml").write_text('name = "\\u001b[2J"\n')
    broken.report_file.write_text(
        '{"student_top1": "high", "best_top1": 1e999, "teacher_top1": [1], "best_epoch": 2.5,'
        ' "stages": {"\\u001b[2J": 1, "x": 1e300}}'
    )
    gone = record("gone")
    count = len(HOSTILE) + 3
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == count)
        states = [str(table.get_row_at(row)[1]) for row in range(count)]
        assert sum("unreadable" in state for state in states) >= 3, "a broken configuration, two newer schemas"
        for _ in range(count):
            await pilot.press("space", "down")
            await pilot.pause()
            assert all(text.isprintable() for text in texts_on(app))
        assert f"{count} marked" in text_of(app, "#title")
        shutil.rmtree(gone.path)
        app.screen.on_screen_resume()  # type: ignore[attr-defined]
        await until(pilot, lambda: table.row_count == count - 1)
        await pilot.press("C")
        await pilot.pause()
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        results = screen.query_one("#results", DataTable)
        await until(pilot, lambda: results.row_count > 0)
        alerts = " ".join(str(cell) for cell in results.get_row_at(results.row_count - 1))
        for _, word in HOSTILE.values():
            assert word in alerts
        for key in ("t", "t", "t", "y", "s", "plus", "h", "i", "i"):
            await pilot.press(key)
            await pilot.pause()
            assert all(text.isprintable() for text in texts_on(app))
        assert "bn loss" in text_of(app, "#title")


async def test_comparing_runs_that_vanish() -> None:
    one, two = record("one"), record("two")
    shutil.rmtree(two.path)
    app = WmddApp(run=one)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(CompareScreen([one, two]))
        results = app.screen.query_one("#results", DataTable)
        await until(pilot, lambda: results.row_count > 0)
        assert "unreadable" in " ".join(str(cell) for row in range(3) for cell in results.get_row_at(row))
        await pilot.press("t")
        await pilot.pause()
        assert "ce loss" in text_of(app, "#title")


# --- without a screen ------------------------------------------------------------------------------------------


def test_the_newest_events_are_found_without_reading_the_rest() -> None:
    run = written(b'{"kind":"beat","t":1}\n' * 10_000 + b'{"kind":"stage","stage":"train","what":"begin"}\n{"kind"')
    found = latest(run.events_file, 100).found
    assert isinstance(found[0], events.Hello), "the first line is always looked at"
    assert isinstance(found[-1], events.Stage)
    assert len(found) < 10
    assert latest(run.events_file, 1 << 30).found == list(events.read(run.events_file))
    assert latest(run.path / "nothing", 100).found == []


def test_a_newer_version_is_refused_in_lists_and_a_resume_by_this_one_is_not() -> None:
    run = written(hello(schema=3))
    append(run, b'{"kind":"beat"}\n' * 50_000)
    newest = hello(schema=3) + b'{"kind":"beat"}\n'
    assert summarise(written(newest)).state == "unreadable"
    assert "schema 3" in summarise(written(newest)).problem
    assert summarise(written(newest + hello(schema=1))).problem == ""


def test_lines_of_any_length_are_read_or_passed_over() -> None:
    run = written(b"x" * (LONGEST_LINE + 10) + b"\n" + hello(class_names=["n" * 100] * 30_000))
    tail, found = EventTail(run.events_file), []
    while batch := tail.poll():
        found += batch
    assert [type(one).__name__ for one in found] == ["Hello", "Iters", "Hello"]
    assert len(found[-1].class_names) == 30_000  # type: ignore[union-attr]
    assert tail.damaged == 2, "the piece of the line that was passed over, and its end"
    assert tail.share == 1.0


def test_a_view_keeps_its_alerts_when_it_starts_over() -> None:
    view = RunView()
    view.apply(events.Beat(t=5000.0))
    view.apply(events.Beat(t=10.0))
    view.start_over()
    assert view.first_time == 0.0
    assert [text.split(" ")[1] for text in view.alerts] == ["clock", "event"]


def test_ended_runs_are_not_read_again_until_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, under_way = record("ended"), written(b"")
    read: list[str] = []

    def counted(run: RunDir, now: float | None = None) -> Any:
        read.append(run.id)
        return summarise(run, now)

    monkeypatch.setattr("wmdd_tui.store.runs.summarise", counted)
    summaries = Summaries()
    for _ in range(2):
        assert [row.id for row in summaries.listed([ended, under_way])] == [ended.id, under_way.id]
    assert read == [ended.id, under_way.id, under_way.id]
    append(ended, b'\n{"kind":"metrics","stage":"train","epoch":3,"epochs":3,"top1":3.5}\n')
    assert summaries.listed([ended])[0].last_top1 == 3.5


def test_a_view_of_the_whole_file_tells_what_was_left_out() -> None:
    view = read_view(written(HOSTILE["garbage"][0] + HOSTILE["an unknown kind"][0]))
    assert any("damaged" in text for text in view.alerts)
    assert any("does not know" in text for text in view.alerts)


# --- terminals -------------------------------------------------------------------------------------------------

PAUSE = "pause"
#: Keys that bring a screen up and select something on it.
STEPS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "runs": (RunsScreen, ("space", "down")),
    "form": (NewRunScreen, ("n", PAUSE, *"abc", "tab")),
    "monitor": (MonitorScreen, ("enter", PAUSE, "2", PAUSE, "down")),
    "compare": (CompareScreen, ("space", "down", "space", "C", PAUSE, "down")),
    "help": (Help, ("question_mark", "down")),
    "palette": (CommandPalette, ("ctrl+p", PAUSE, *"them")),
    "question": (Confirm, ("delete", PAUSE, "tab")),
    "choice": (Choose, ("E", PAUSE, "down")),
    "paste": (Paste, ("n", PAUSE, "f4", PAUSE, *"wmdd")),
}


async def settled(app: WmddApp, pilot: Pilot[int]) -> None:
    """Wait for what a screen reads in a thread."""
    await pilot.pause()
    screen = app.screen
    if isinstance(screen, MonitorScreen):
        await until(pilot, lambda: screen.state not in ("", "starting") or not screen.run.events_file.is_file())
    if isinstance(screen, CompareScreen):
        await until(pilot, lambda: screen.query_one("#results", DataTable).row_count > 0)
    await pilot.pause()


def selected(app: WmddApp) -> list[object]:
    """What a user would miss: the screen, where the focus is, and what is highlighted, marked or typed."""
    found: list[object] = [type(app.screen), app.focused and (type(app.focused), app.focused.id)]
    found += [(one.id, one.cursor_row, one.row_count) for one in app.screen.query(DataTable)]
    found += [(one.id, one.highlighted) for one in app.screen.query(OptionList)]
    found += [(one.id, one.value) for one in app.screen.query(Input)]
    found += [(one.id, one.text) for one in app.screen.query(TextArea)]
    found += [one.id for one in app.screen.query(".-current")]
    if isinstance(app.screen, RunsScreen):
        found.append(text_of(app, "#title"))
    return found


@pytest.mark.parametrize("name", STEPS)
async def test_nothing_is_lost_when_the_terminal_changes_its_size(name: str) -> None:
    record("alpha")
    record("beta")
    kind, keys = STEPS[name]
    app = WmddApp()
    async with app.run_test(size=LARGE) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        for key in keys:
            await (settled(app, pilot) if key == PAUSE else pilot.press(key))
        await settled(app, pilot)
        assert isinstance(app.screen, kind)
        before = selected(app)
        for size in (SMALL, LARGE):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert all(text.isprintable() for text in texts_on(app))
        await settled(app, pilot)
        assert selected(app) == before


@pytest.mark.parametrize(
    ("command", "instead"),
    [([], "wmdd-tui runs"), (["new"], "wmdd-tui run"), (["attach"], "wmdd-tui watch")],
    ids=["home", "new", "attach"],
)
def test_without_a_terminal_the_command_without_a_screen_is_named(command: list[str], instead: str) -> None:
    record()
    done = subprocess.run(
        [sys.executable, "-m", "wmdd_tui", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"`{instead}`" in done.stderr
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
