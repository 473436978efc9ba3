"""Compare: what is drawn, and the images side by side."""

from __future__ import annotations

from piloted import record, text_of, until
from test_panels import with_images
from textual.pilot import Pilot
from textual.widgets import DataTable

from engine import events, presets, rundir
from engine.config import override
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp
from wmdd_tui.screens.compare import CompareScreen, read_sheet, shortened
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.picture import Picture


async def compared(app: WmddApp, pilot: Pilot[int], runs: list[RunDir]) -> CompareScreen:
    """The screen once it has read its runs."""
    screen = CompareScreen(runs)
    await app.push_screen(screen)
    await until(pilot, lambda: screen.query_one("#differences", DataTable).row_count > 0)
    return screen


def legend(screen: CompareScreen) -> str:
    return "".join(part.text for part in screen.query_one(LossChart).render_line(0)).strip()


def rows_of(picture: Picture) -> str:
    return "\n".join("".join(part.text for part in picture.render_line(y)) for y in range(picture.size.height))


def test_a_sheet_holds_one_image_of_each_class() -> None:
    run = with_images(record())
    sheet = read_sheet(run, 1)
    assert (sheet.labels, sheet.ids) == ([0, 1], ["class-0", "class-1"])
    assert [tile.getpixel((0, 0)) for tile in sheet.tiles] == [(80, 0, 99)] * 2
    assert [tile.getpixel((0, 0)) for tile in read_sheet(run, 99).tiles] == [(160, 0, 99)] * 2, "the last there is"
    (run.images / "class-1" / "class001_id001.png").write_bytes(b"")
    assert read_sheet(run, 1).instead.startswith("cannot be shown")
    assert read_sheet(record(), 0).tiles == []


def test_long_labels_keep_both_ends() -> None:
    assert shortened("short") == "short"
    long = shortened("imagenette-resnet18-ipc10-lambda-100")
    assert len(long) <= 24
    assert long.startswith("imagenette")
    assert long.endswith("lambda-100")


async def test_images_stand_side_by_side_with_their_names() -> None:
    runs = [with_images(record("alpha")), record("beta")]
    for run in runs:
        writer = events.Writer(run.events_file)
        writer.write(events.Hello(class_names=["zero", "one"], classes=2, ipc=3, chunks=1, iterations=20))
        writer.close()
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await compared(app, pilot, runs)
        await pilot.press("i")
        await until(pilot, lambda: "reading" not in text_of(app, "#title"))
        assert "2 runs · image 1 of each class" in text_of(app, "#title")
        assert "zero" in rows_of(screen.query_one("#sheet-0", Picture))
        assert "no finished images" in rows_of(screen.query_one("#sheet-1", Picture))
        before = rows_of(screen.query_one("#sheet-0", Picture)), screen.query_one("#sheet-0", Picture).render_line(0)
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: screen.query_one("#sheet-0", Picture).render_line(0) != before[1])
        assert "image 2 of each class" in text_of(app, "#title")
        for _ in range(5):
            await pilot.press("right_square_bracket")
        await pilot.pause()
        assert "image 3 of each class" in text_of(app, "#title"), "there are no more"


async def test_a_long_setting_does_not_hide_the_other_runs() -> None:
    long = override(presets.get("digits"), ["recover.objective=given", f'recover.path="/{"folder/" * 20}images"'])
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await compared(app, pilot, [record(), rundir.create(long)])
        table = screen.query_one("#differences", DataTable)
        rows = [[str(cell) for cell in table.get_row_at(index)] for index in range(table.row_count)]
        path = next(row for row in rows if row[0] == "recover.path")
        assert path[1] == "(empty)"
        assert path[2].endswith("images")
        assert len(path[2]) <= 24


async def test_the_accuracy_of_the_students_is_drawn_too() -> None:
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await compared(app, pilot, [record("alpha"), record("beta")])
        assert "total loss" in text_of(app, "#title")
        await pilot.press("t", "t", "t", "t")
        await pilot.pause()
        assert "student top-1 % by epoch" in text_of(app, "#title")
        assert "alpha 62.5" in legend(screen)
        assert "beta 62.5" in legend(screen)
        await pilot.press("t")
        await pilot.pause()
        assert "total loss" in text_of(app, "#title")


async def test_runs_whose_names_begin_alike_are_told_apart() -> None:
    names = ["a-name-so-long-that-it-is-cut-one", "a-name-so-long-that-it-is-cut-two"]
    app = WmddApp()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await compared(app, pilot, [record(name) for name in names])
        assert "cut-one" in legend(screen)
        assert "cut-two" in legend(screen)
