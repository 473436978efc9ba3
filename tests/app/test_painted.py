"""Widgets that make their rows whole: once for each size, and never shown at another."""

from __future__ import annotations

from rich.segment import Segment
from textual.app import App, ComposeResult
from textual.geometry import Region, Size
from textual.strip import Strip

from wmdd_tui.widgets.painted import Painted
from wmdd_tui.widgets.table import RowTable


class Sized(Painted):
    """Shows its own size; notes for which sizes it made rows, and which of them were on a frame at which size."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Size] = []
        self.frames: set[tuple[Size, str]] = set()

    def rows(self) -> list[Strip]:
        self.made.append(self.size)
        return [Strip([Segment(f"{self.size.width}x{self.size.height}")])] if self.size.area else []

    def render_lines(self, crop: Region) -> list[Strip]:
        strips = super().render_lines(crop)
        if crop.y == 0:
            self.frames.add((self.size, strips[0].text.strip()))
        return strips


class OneWidget(App[None]):
    def compose(self) -> ComposeResult:
        yield Sized()


async def test_no_frame_shows_the_rows_of_another_size() -> None:
    app = OneWidget()
    async with app.run_test(size=(80, 24)) as pilot:
        widget = app.query_one(Sized)
        for width, height in ((40, 10), (100, 30), (40, 10)):
            widget.made.clear()
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert widget.made == [widget.size], "rows are made once for a size"
        assert {shown for _, shown in widget.frames} == {"80x24", "40x10", "100x30"}
        assert all(shown == f"{size.width}x{size.height}" for size, shown in widget.frames)


class OneTable(App[None]):
    def compose(self) -> ComposeResult:
        yield RowTable()


async def test_a_table_that_is_shown_again_keeps_the_lines_it_drew() -> None:
    app = OneTable()
    async with app.run_test(size=(40, 10)) as pilot:
        table = app.query_one(RowTable)
        table.add_column("layer", key="layer")
        table.add_row("bn1", key="bn1")
        await pilot.pause()
        before = table._update_count  # what Textual's caches of lines go by
        for shown in (False, True):
            table.display = shown
            await pilot.pause()
        assert table._update_count == before
        await pilot.resize_terminal(30, 10)
        await pilot.pause()
        assert table._update_count > before
        assert "bn1" in table.render_line(1).text
