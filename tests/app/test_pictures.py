"""Pictures: how many have room, what of them is drawn, and how the monitor's panel walks among them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from piloted import record, until
from test_panels import with_images
from textual.app import App, ComposeResult

from engine import events
from engine.rundir import RunDir
from wmdd_tui.app import Settings, WmddApp
from wmdd_tui.plotting import mosaic
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.store.pictures import thumbnails
from wmdd_tui.widgets.panels import ImagePanel
from wmdd_tui.widgets.picture import Picture


def tile(colour: str = "red", side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


# --- pure ------------------------------------------------------------------------------------------------------


@given(
    count=st.integers(1, 3000), aspect=st.floats(0.05, 20), width=st.integers(1, 200), height=st.integers(1, 60),
    named=st.booleans(),
)  # fmt: skip
def test_a_grid_stays_inside_its_space(count: int, aspect: float, width: int, height: int, named: bool) -> None:
    grid = mosaic.grid_of(count, aspect, width, height, named)
    if grid is None:
        return
    x, y = grid.place(grid.shown - 1)
    assert x + grid.width <= width
    assert y + grid.height + named <= height
    assert grid.shown >= min(count, 1)


def test_a_grid_shows_all_where_they_can_be_recognised_and_else_fewer() -> None:
    ten = mosaic.grid_of(10, 1.0, 78, 16, named=True)
    assert ten is not None
    assert (ten.shown, ten.width, ten.height) == (10, 14, 7)
    odd = mosaic.grid_of(10, 1.0, 80, 17)
    assert odd is not None
    assert (odd.width, odd.height) == (15, 8), "half a cell more is used"
    many = mosaic.grid_of(1000, 1.0, 78, 16)
    assert many is not None
    assert 1 < many.shown < 1000
    assert many.width >= mosaic.LEAST_SIDE
    alone = mosaic.grid_of(1, 1.0, 78, 16)
    assert alone == mosaic.Grid(1, 1, 32, 16, False)


def test_tiles_keep_their_pixels_and_nothing_is_drawn_between_them() -> None:
    grid = mosaic.grid_of(2, 1.0, 41, 10)
    assert grid is not None
    pixels = mosaic.compose([tile("red"), tile("blue")], grid)
    assert pixels.shape[1] == 2 * grid.width + mosaic.GAP
    assert pixels[0, 0].tolist() == [255, 0, 0, 255]
    assert pixels[0, grid.width].tolist()[3] == 0
    assert pixels[0, grid.width + 1].tolist() == [0, 0, 255, 255]
    assert pixels[2 * grid.height - 1, 0].tolist() == [255, 0, 0, 255]


def test_a_row_of_pictures_is_split_where_it_can_be() -> None:
    row = Image.new("RGB", (12, 4))
    assert [one.size for one in mosaic.split(row, 3)] == [(4, 4)] * 3
    assert mosaic.split(row, 5) == [row]
    assert mosaic.split(row, 0) == [row]


def test_thumbnails_are_finished_images_else_live_ones_else_none() -> None:
    run = record()
    assert thumbnails(run, 5) == []
    Image.new("RGB", (12, 4), "blue").save(run.previews / "chunk-000000-0000010.png")
    assert [one.size for one in thumbnails(run, 5)] == [(4, 4)] * 3
    with_images(run)
    assert [one.size for one in thumbnails(run, 5)] == [(4, 4)] * 2
    (run.images / "class-0" / "class000_id000.png").write_bytes(b"no picture")
    assert thumbnails(run, 5) == []


# --- the widget ------------------------------------------------------------------------------------------------


class Frame(App[None]):
    """A picture alone."""

    def compose(self) -> ComposeResult:
        yield Picture()


def shown_text(app: App[None]) -> list[str]:
    picture = app.query_one(Picture)
    return ["".join(part.text for part in picture.render_line(y)).rstrip() for y in range(picture.size.height)]


async def test_names_stand_under_their_pictures(tmp_path: Path) -> None:
    file = tmp_path / "row.png"
    Image.new("RGB", (16, 8), "green").save(file)
    app = Frame()
    async with app.run_test(size=(42, 12)) as pilot:
        picture = app.query_one(Picture)
        picture.show_row(file, ["zero", "a name too long for its place [b]"])
        await pilot.pause()
        rows = shown_text(app)
        named = next(row for row in rows if "zero" in row)
        assert "…" in named
        assert rows.index(named) == 10
        assert picture.shown == 2
        await pilot.resize_terminal(42, 30)
        await pilot.pause()
        assert len([row for row in shown_text(app) if "▀" in row]) > 10, "another size is drawn anew"


async def test_more_room_shows_more_files(tmp_path: Path) -> None:
    files = []
    for number in range(40):
        files.append(tmp_path / f"{number}.png")
        tile(side=8).save(files[-1])
    app = Frame()
    async with app.run_test(size=(40, 10)) as pilot:
        picture = app.query_one(Picture)
        picture.show_files(files)
        few = picture.shown
        await pilot.resize_terminal(160, 40)
        await pilot.pause()
        assert 1 < few < picture.shown == 40


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n truncated", None])
async def test_a_file_that_is_no_picture_is_said_in_words(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.png"
    if content is not None:
        file.write_bytes(content)
    app = Frame()
    async with app.run_test(size=(60, 10)) as pilot:
        for show in (lambda: app.query_one(Picture).show(file), lambda: app.query_one(Picture).show_row(file, ["a"])):
            show()
            await pilot.pause()
            assert "broken.png cannot be shown" in shown_text(app)[0]


# --- the panel -------------------------------------------------------------------------------------------------


def being_recovered(classes: int = 4) -> RunDir:
    """A run in the middle of recovery, with a live row of pictures and two finished classes."""
    run = with_images(record())
    names = [f"kind {label}" for label in range(classes)]
    run.events_file.unlink()
    writer = events.Writer(run.events_file)
    writer.write(events.Hello(stages=["recover"], classes=classes, class_names=names, ipc=3, chunks=2, iterations=9))
    writer.write(events.Stage(stage="recover", what="begin"))
    writer.write(events.Image(chunk=1, iteration=5, path="previews/live.png", classes=list(range(classes))))
    writer.close()
    Image.new("RGB", (8 * classes, 8), "blue").save(run.previews / "live.png")
    return run


async def test_live_pictures_carry_their_class_names_and_lead_to_the_finished_ones() -> None:
    app = WmddApp("monitor", being_recovered())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.view.image is not None)
        await pilot.press("4")
        await pilot.pause()
        panel = screen.query_one(ImagePanel)
        await until(pilot, lambda: panel.as_text().startswith("live: chunk 2/2, iteration 5/9"))
        picture = panel.query_one(Picture)
        rows = ["".join(part.text for part in picture.render_line(y)) for y in range(picture.size.height)]
        assert all(any(f"kind {label}" in row for row in rows) for label in range(4))
        await pilot.press("right", "right")
        await pilot.pause()
        assert panel.as_text().startswith("class 2/2: kind 1 · 3 images")
        await pilot.press("left", "left")
        await pilot.pause()
        assert panel.as_text().startswith("live:"), "before the first class comes the live picture"


async def test_it_is_said_that_no_class_is_finished_yet() -> None:
    run = being_recovered()
    shutil.rmtree(run.images)
    app = WmddApp("monitor", run)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.view.image is not None)
        await pilot.press("4", "enter")
        await pilot.pause()
        assert "no finished images yet" in screen.query_one(ImagePanel).as_text()


@pytest.mark.parametrize("ended", [False, True])
async def test_on_a_slow_link_pictures_wait_until_they_are_asked_for(ended: bool) -> None:
    run = with_images(record()) if ended else being_recovered()
    app = WmddApp("monitor", run, settings=Settings(slow_link=True))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.view.end is not None if ended else screen.view.image is not None)
        await pilot.press("4")
        await pilot.pause()
        panel = screen.query_one(ImagePanel)
        picture = panel.query_one(Picture)
        await until(pilot, lambda: "enter:" in panel.as_text())
        assert ("2 finished classes" if ended else "live:") in panel.as_text()
        assert picture.shown == 0
        await pilot.press("enter")
        await pilot.pause()
        assert picture.shown == (3 if ended else 4)
        if not ended:
            await pilot.press("right", "left")
            await pilot.pause()
            assert panel.as_text().startswith("live:")
            assert picture.shown == 0, "the class does not stay under the caption of the live pictures"


async def test_the_filter_goes_to_a_class_by_its_name() -> None:
    app = WmddApp("monitor", being_recovered())
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.view.image is not None)
        await pilot.press("4", "slash", *"KIND 1")
        await pilot.pause()
        panel = screen.query_one(ImagePanel)
        assert panel.as_text().startswith("class 1/1 that match: kind 1")
        await pilot.press(*"23")
        await pilot.pause()
        assert "no finished class holds “kind 123”" in panel.as_text()
        await pilot.press("enter", "enter", "escape")
        await pilot.pause()
        assert "class 1/2: kind 0" in panel.as_text(), "without a filter all classes are there again"


async def test_an_image_alone_is_as_large_as_the_panel() -> None:
    app = WmddApp("monitor", with_images(record()))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = app.screen
        assert isinstance(screen, MonitorScreen)
        await until(pilot, lambda: screen.state == "finished")
        await pilot.press("4", "enter")
        await pilot.pause()
        picture = screen.query_one(ImagePanel).query_one(Picture)
        assert math.isclose(picture.size.height, len(picture._rows), abs_tol=1)
