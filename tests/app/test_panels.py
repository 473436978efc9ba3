"""What the panels and lists do with keys and data, beyond being called."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from PIL import Image
from piloted import record, text_of, until
from textual.widgets import DataTable, Log

from engine import events, presets, rundir
from engine.rundir import RunDir
from wmdd_tui.app import Settings, WmddApp
from wmdd_tui.screens.choose import Choose
from wmdd_tui.screens.compare import slots_of
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.store.alerts import AlertBook, low_disk
from wmdd_tui.store.moments import CAPACITY, Moments
from wmdd_tui.store.runs import summarise
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.headline import alert_lines, headline, stages
from wmdd_tui.widgets.heatmap import Heatmap
from wmdd_tui.widgets.memory_parts import device_parts
from wmdd_tui.widgets.panels import ImagePanel, LayerPanel, LogPanel, MetricsPanel
from wmdd_tui.widgets.panels.log import wrapped
from wmdd_tui.widgets.run_rows import chosen
from wmdd_tui.widgets.views import accuracy_curves, elapsed, layer_curve, layer_rows, loss_curves


def view_of(*found: events.AnyEvent) -> RunView:
    view = RunView()
    for event in found:
        view.apply(event)
    return view


def layered(chunks: int = 2) -> RunView:
    """Two chunks of ten iterations; the first layer falls, the second rises, the third stays."""
    hello = events.Hello(chunks=chunks, iterations=10, layers=["falling", "rising", "level"])
    moments = [
        events.Layers(chunk=chunk, iteration=i, values=[30.0 - chunk * 10 - i, 1.0 + chunk * 10 + i, 9.0])
        for chunk in range(chunks)
        for i in range(10)
    ]
    return view_of(hello, *moments)


def looking_for_patches() -> list[events.AnyEvent]:
    """Five minutes of choosing a start, in which no iteration is done."""
    hello = events.Hello(t=1000.0, device="cpu", chunks=1, iterations=100, stages=["recover"])
    note = events.Progress(
        t=1001.0, stage="recover", total=100, done=0, unit="iterations", note="patches of image 3 of 9"
    )
    begin = events.Stage(t=1000.0, stage="recover", what="begin")
    return [hello, begin, note, replace(note, t=1300.0, note="patches of image 9 of 9")]


def with_images(run: RunDir) -> RunDir:
    for label in range(2):
        folder = run.images / f"class-{label}"
        folder.mkdir()
        for number in range(3):
            Image.new("RGB", (4, 4), (80 * number, 0, 99)).save(folder / f"class00{label}_id00{number}.png")
    return run


# --- pure ------------------------------------------------------------------------------------------------------


def test_what_is_done_before_the_first_iteration_is_told_and_does_not_count_as_slowness(tmp_path: Path) -> None:
    first = events.Progress(t=1302.0, stage="recover", total=100, done=4, unit="iterations")
    for found, said in (
        (looking_for_patches(), "patches of image 9 of 9"),
        ([*looking_for_patches(), first], "2 it/s · ETA 48s"),
    ):
        line = headline(RunDir(tmp_path), "running", view_of(*found), Settings(), False, True).plain
        assert said in line
    assert "patches" not in line


def test_the_stage_a_run_ended_in_says_how_far_it_got() -> None:
    found = [
        events.Hello(stages=["squeeze", "recover", "train"]),
        events.Stage(stage="squeeze", what="begin"),
        events.Stage(stage="squeeze", what="end", seconds=3.0),
        events.Stage(stage="recover", what="begin"),
        events.Progress(stage="recover", done=27, total=100, unit="iterations"),
    ]
    view = view_of(*found)
    assert stages(view, "running", True, True).plain == "+ squeeze | > recover 27% | - train"
    assert stages(view, "crashed", True, True).plain == "+ squeeze | # recover 27% | - train"


def test_time_between_two_sessions_of_a_run_does_not_count() -> None:
    first = [events.Hello(t=1000.0, device="cpu, 1 threads"), events.Beat(t=1040.0)]
    second = [events.Hello(t=2000.0, device="cpu, 11 threads"), events.Beat(t=2009.0)]
    assert elapsed(view_of(*first), False, 5000.0) == 40.0
    view = view_of(*first, events.End(t=1040.0, status="stopped"), *second)
    assert elapsed(view, False, 5000.0) == 49.0
    assert elapsed(view, True, 2020.0) == 60.0


def test_one_thread_is_in_the_singular(tmp_path: Path) -> None:
    for device, told in (("cpu, 1 threads", "· cpu, 1 thread"), ("cpu, 11 threads", "· cpu, 11 threads")):
        line = headline(RunDir(tmp_path), "running", view_of(events.Hello(device=device)), Settings(), False, True)
        assert line.plain.endswith(told)


def test_the_list_of_runs_does_not_count_it_either() -> None:
    first = events.Progress(t=1302.0, stage="recover", total=100, done=4, unit="iterations")
    run = record()
    run.events_file.unlink()
    writer = events.Writer(run.events_file)
    for event in [*looking_for_patches(), first]:
        writer.write(event)
    writer.close()
    assert summarise(run).its_per_s == pytest.approx(2.0)


def test_layers_are_ordered_by_value_trend_and_name() -> None:
    view = layered()
    assert [row.cells[0] for row in layer_rows(view, True)] == ["falling", "rising", "level"]
    by = {order: [row.cells[0] for row in layer_rows(view, True, order)] for order in ("largest value", "name")}
    assert by == {"largest value": ["rising", "falling", "level"], "name": ["falling", "level", "rising"]}
    steep = layer_rows(view, True, "steepest trend")
    assert steep[-1].cells[3] == "level +0 %"
    assert {row.cells[3].split()[0] for row in steep[:2]} == {"up", "down"}


def test_a_layer_has_its_history_with_chunk_boundaries() -> None:
    curves = layer_curve(layered(), 1)
    assert curves.boundaries == (10.0,)
    assert curves.series[0][1].window(0, 20, 20).mean.tolist() == [float(value) for value in range(1, 21)]


def test_boundaries_stand_where_chunks_begin() -> None:
    view = view_of(events.Hello(chunks=3, iterations=5), events.Iters(chunk=0, first=0, total=[1.0], ce=[2.0]))
    assert loss_curves(view).boundaries == (5.0, 10.0)
    assert [name for name, _ in loss_curves(view, "ce").series] == ["CE"]
    assert loss_curves(view, "ce").slots == (1,), "a term keeps its sign when it is drawn alone"


def test_a_teacher_that_was_loaded_is_a_line_too() -> None:
    view = view_of(
        events.Metrics(stage="teacher", epoch=0, epochs=0, top1=90.0),
        events.Metrics(stage="train", epoch=2, epochs=4, top1=50.0, top5=80.0),
    )
    curves = dict(accuracy_curves(view).series)
    assert set(curves) == {"student top-1 %", "teacher", "top-5 %"}
    assert curves["teacher"].window(0, 5, 1).mean[0] == 90.0


def test_moments_stay_bounded_and_keep_first_and_last() -> None:
    moments = Moments()
    for iteration in range(10 * CAPACITY + 3):
        moments.append(events.Layers(chunk=0, iteration=iteration, values=[]))
    assert len(moments) <= CAPACITY
    assert (moments[0].iteration, moments[-1].iteration) == (0, 10 * CAPACITY + 2)
    gaps = {later.iteration - one.iteration for one, later in itertools.pairwise(moments[:-1])}
    assert len(gaps) == 1, "thinned evenly"


def test_log_lines_are_wrapped_under_their_message() -> None:
    lines = wrapped(["12:00:00 " + "word " * 20], 40)
    assert len(lines) > 2
    assert all(len(line) <= 40 for line in lines)
    assert all(line.startswith(" " * 9) for line in lines[1:])
    assert wrapped(["long " * 30], 10) == ["long " * 30]


def test_gpu_memory_names_every_part() -> None:
    memory = events.Memory(
        allocated=4 << 30, reserved=6 << 30, peak=5 << 30, inactive_split=3 << 30, retries=2, ooms=1,
        device_total=16 << 30, device_free=8 << 30, utilisation=93.0, power=250.0, temperature=61.0,
    )  # fmt: skip
    parts = device_parts(memory)
    assert parts is not None
    assert [(name, value / (1 << 30)) for name, value, _ in parts.parts] == [
        ("allocated", 4), ("cached", 2), ("other processes", 2),
    ]  # fmt: skip
    told = "\n".join([parts.legend(), *parts.notes])
    for words in ("peak 5.0 GiB", "fragmented: 3.0 GiB (50 %", "2 allocator retries", "93 %", "250 W", "61 °C"):
        assert words in told


def test_signs_of_runs_depend_on_the_run_not_on_its_place() -> None:
    ids = ["a-run", "b-run", "c-run", "d-run"]
    first, turned = slots_of(ids), slots_of(ids[::-1])
    assert first == turned[::-1]
    assert len(set(first)) == 4


# --- alerts ----------------------------------------------------------------------------------------------------


def test_alerts_stay_until_dismissed_and_return_with_their_cause(tmp_path: Path) -> None:
    book, view = AlertBook(RunDir(tmp_path)), RunView()
    book.update("stalled", view, "")
    book.update("running", view, "")
    assert [alert.text.split(":")[0] for alert in book.listed()] == ["stalled"], "listed after its cause has passed"
    assert book.dismiss() == 1
    book.update("running", view, "the disk is nearly full")
    book.update("running", view, "the disk is nearly full")
    assert len(book.listed()) == 1
    book.update("stalled", view, "")
    assert len(book.listed()) == 2


def test_alerts_of_events_and_of_the_end(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.console_file.write_text("one\n\x1b[31mtwo\nthree\nfour\n")
    view = view_of(
        events.Hello(iterations=5, chunks=2),
        events.Iters(chunk=1, first=3, total=["nan"]),
        events.Memory(retries=3),
        events.End(status="failed", error="NonFiniteLoss", message="the loss\nis nan", remedy="lower recover.lr"),
    )
    book = AlertBook(run)
    book.update("failed", view, "")
    book.update("failed", view, "")
    told = [alert.text for alert in book.listed()]
    assert len(told) == 3
    assert "chunk 1, iteration 3" in told[0]
    assert "retried 3 times" in told[1]
    assert told[2] == "failed: NonFiniteLoss: the loss is nan"
    crash = AlertBook(run)
    crash.update("crashed", RunView(), "")
    assert crash.listed()[0].lines == ("[31mtwo", "three", "four")


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("", ["! crashed: the engine's process is gone without a word; resume it with r"]),
        ("oh", ["! crashed: the engine's process is gone without a word; resume it with r; its last lines:", "  oh"]),
    ],
)
def test_an_engine_that_died_silently_leaves_a_whole_sentence(printed: str, told: list[str], tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.console_file.write_text(printed)
    book = AlertBook(run)
    book.update("crashed", RunView(), "")
    assert alert_lines(book.listed(), 6, True).plain.splitlines() == told


def test_more_alerts_than_rows_are_counted() -> None:
    book = AlertBook(RunDir(Path("/nowhere")))
    view = RunView()
    view.alerts = [f"alert {number}" for number in range(9)]
    book.update("running", view, "")
    lines = alert_lines(book.listed(), 4, True).plain.splitlines()
    assert len(lines) == 4
    assert "9 alerts" in lines[0]
    assert lines[-1] == "! alert 8"


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5 << 20, "total": 1 << 40})
    monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
    assert "5 MiB are free" in low_disk(tmp_path)
    usage.free = 1 << 39  # type: ignore[attr-defined]
    assert low_disk(tmp_path) == ""


# --- by keys ---------------------------------------------------------------------------------------------------


async def test_a_layer_opens_and_closes() -> None:
    app = WmddApp("monitor", record())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        await pilot.press("2")
        await pilot.pause()
        panel = screen.query_one(LayerPanel)
        await pilot.press("o")
        await pilot.pause()
        assert panel.as_text().splitlines()[1].startswith("[red]x[/]"), "the largest value comes first"
        await pilot.press("enter")
        await pilot.pause()
        assert panel.query_one(LossChart).display
        await pilot.press("y", "left", "escape")
        await pilot.pause()
        assert not panel.query_one(LossChart).display
        assert app.screen is screen, "escape went one level back, not out of the monitor"
        await pilot.press("slash", *"blocks", "enter")
        await pilot.pause()
        assert panel.query_one(DataTable).row_count == 1


@pytest.mark.parametrize(("done", "told"), [(False, "no values yet"), (True, "the images of this run were taken as")])
async def test_a_run_that_optimises_nothing_says_so(done: bool, told: str) -> None:
    run = rundir.create(presets.get("digits"))
    writer = events.Writer(run.events_file)
    writer.write(events.Hello(stages=["recover", "train"], chunks=1, iterations=300))
    writer.write(events.Stage(stage="recover", what="begin"))
    if done:
        writer.write(events.Stage(stage="recover", what="end", seconds=1.0))
    writer.close()
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        chart = app.screen.query_one(LossChart)
        await until(pilot, lambda: told in chart.render_line(0).text)
        await pilot.press("y")
        await until(pilot, lambda: told in chart.render_line(0).text)
        await pilot.press("2")
        heatmap = app.screen.query_one(Heatmap)
        wanted = "no statistics were matched" if done else "no values yet"
        await until(pilot, lambda: wanted in heatmap.render_line(0).text)
        await pilot.press("5")
        log = app.screen.query_one(Log)
        await until(pilot, lambda: list(log.lines)[:1] == ["nothing was logged yet"])
        assert app.screen.query_one(LogPanel).as_text() == ""
        with closing(events.Writer(run.events_file)) as writer:
            writer.write(events.Log(message="at last"))
        await until(pilot, lambda: str(log.lines[0]).endswith("at last"))


async def test_classes_and_single_images() -> None:
    app = WmddApp("monitor", with_images(record()))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        await pilot.press("4")
        await pilot.pause()
        panel = screen.query_one(ImagePanel)
        assert "class 1/2: zero · 3 images" in panel.as_text()
        await pilot.press("enter", "right")
        await pilot.pause()
        assert "image 2/3 · class-0/class000_id001.png" in panel.as_text()
        await pilot.press("escape", "right")
        await pilot.pause()
        assert panel.as_text().startswith("class 2/2: [red]x[/]")


async def test_evaluations_are_listed_and_every_epoch_is_copied() -> None:
    run = record()
    writer = events.Writer(run.events_file)
    for epoch in range(11, 31):
        top1 = 70.0 + epoch if epoch % 10 == 0 else None
        writer.write(events.Metrics(stage="train", epoch=epoch, epochs=30, loss=0.25, top1=top1))
    writer.close()
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: len(screen.view.metrics) == 22)
        await pilot.press("6")
        await pilot.pause()
        panel = screen.query_one(MetricsPanel)
        table = panel.query_one(DataTable)
        shown = [str(table.get_row_at(index)[1]) for index in range(table.row_count)]
        assert shown == ["1/1", "10/10", "20/30", "30/30"]
        assert len(panel.as_text().splitlines()) == 1 + 22


async def test_the_log_wraps_and_is_written_to_a_file() -> None:
    run = record()
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        await pilot.press("5")
        await pilot.pause()
        log = screen.query_one(LogPanel).query_one(Log)
        before = log.line_count
        await pilot.resize_terminal(40, 24)
        await pilot.press("w")
        await pilot.pause()
        assert log.line_count > before
        await pilot.press("S")
        await pilot.pause()
        written = (rundir.home() / "exports" / run.id / "log.txt").read_text()
        assert "second line" in written
        await pilot.press("c")
        await pilot.pause()
        assert app.clipboard in written


async def test_freezing_holds_the_data_and_letting_go_catches_up() -> None:
    run = record()
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        await pilot.press("space")
        writer = events.Writer(run.events_file)
        writer.write(events.Metrics(stage="train", epoch=11, epochs=11, top1=77.25))
        writer.close()
        await pilot.press("6")
        await pilot.pause()
        assert "FROZEN" in text_of(app, "#headline")
        assert "77.25" not in text_of(app, "#figures")
        await pilot.press("space")
        await until(pilot, lambda: "77.25" in text_of(app, "#figures"))


async def test_pins_stay_on_top_and_are_kept() -> None:
    record("alpha")
    record("beta")
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        last = str(table.get_row_at(1)[2])
        await pilot.press("down", "P")
        await pilot.pause()
        assert str(table.get_row_at(0)[2]) == last
        assert table.cursor_row == 0, "the highlighted run stays highlighted"
        assert "1 pinned" in text_of(app, "#title")
    again = WmddApp()
    async with again.run_test(size=(80, 24)) as pilot:
        table = again.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 2)
        assert str(table.get_row_at(0)[2]) == last


async def test_export_asks_what_and_writes_it() -> None:
    run = record()
    app = WmddApp(run=run)
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("E")
        await pilot.pause()
        assert isinstance(app.screen, Choose)
        await pilot.press("enter")
        folder = rundir.home() / "exports" / run.id
        await until(pilot, lambda: all((folder / f"charts.{kind}").is_file() for kind in ("svg", "png", "csv")))


async def test_the_theme_recolours_charts() -> None:
    app = WmddApp("monitor", record())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        chart = screen.query_one("#panel-losses").query_one(LossChart)

        def colours() -> set[str]:
            found = {segment.style.color.name for segment in chart.render_line(0) if segment.style}
            return found

        dark = colours()
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert colours().isdisjoint(dark)


def test_pinned_runs_come_first_in_every_order() -> None:
    from wmdd_tui.store.runs import RunSummary

    rows = [RunSummary(name, "", name, "finished") for name in ("c", "a", "b")]
    assert [row.id for row in chosen(rows, "", "name", {"b"})] == ["b", "a", "c"]
    assert [row.id for row in chosen(rows, "a finished", "newest", set())] == ["a"]


async def test_the_log_keeps_to_its_end_while_the_terminal_changes_unless_it_was_left() -> None:
    run = record()
    writer = events.Writer(run.events_file)
    for number in range(200):
        writer.write(events.Log(message=f"line {number}"))
    app = WmddApp("monitor", run)
    async with app.run_test(size=(200, 60)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: len(screen.view.log) > 199)
        log = screen.query_one(LogPanel).query_one(Log)
        await pilot.press("5")
        for size in ((200, 60), (80, 24), (40, 10), (120, 40), (80, 24)):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: log.line_count > 199 and log.is_vertical_scroll_end and log.scroll_y > 0)
        writer.write(events.Log(message="one more"))
        await until(pilot, lambda: log.lines[-1].endswith("one more") and log.is_vertical_scroll_end)
        log.scroll_to(y=3, animate=False)
        await until(pilot, lambda: log.scroll_y == 3)
        await pilot.resize_terminal(100, 30)
        writer.write(events.Log(message="not followed"))
        await until(pilot, lambda: log.lines[-1].endswith("not followed"))
        await pilot.pause()
        assert log.scroll_y == 3
    writer.close()
