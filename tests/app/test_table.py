"""Tables whose columns widen after they were drawn."""

from __future__ import annotations

from rich.text import Text
from textual.app import App, ComposeResult

from wmdd_tui.widgets.table import RowTable

LONG = "features.denseblock4.norm1"


class Tabled(App[None]):
    def compose(self) -> ComposeResult:
        yield RowTable()


def shown(table: RowTable) -> str:
    return "\n".join(table.render_line(y).text.rstrip() for y in range(table.row_count + 1))


async def test_what_was_drawn_before_the_columns_were_measured_is_drawn_again() -> None:
    app = Tabled()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.query_one(RowTable)
        for name in ("layer", "value"):
            table.add_column(name, key=name)
        await pilot.pause()
        table.add_row(Text(LONG), Text("1.5"), key="0")
        assert LONG not in shown(table), "new rows are measured when the app is idle"
        await pilot.pause()
        assert LONG in shown(table)


async def test_a_cell_that_outgrows_its_column_widens_it() -> None:
    app = Tabled()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.query_one(RowTable)
        for name in ("layer", "value"):
            table.add_column(name, key=name)
        table.add_row(Text(LONG), Text("1.5"), key="0")
        await pilot.pause()
        table.put("0", {"value": Text("1.234567e+12")})
        shown(table)
        await pilot.pause()
        assert "1.234567e+12" in shown(table)


async def test_a_bar_that_appears_begins_where_the_rows_are() -> None:
    app = Tabled()
    async with app.run_test(size=(40, 8)) as pilot:
        table = app.query_one(RowTable)
        await pilot.pause()
        assert not table.show_vertical_scrollbar
        table.set_reactive(RowTable.scroll_y, 5.0)  # as where rows are moved while there is no bar
        table.show_vertical_scrollbar = True
        assert table.vertical_scrollbar.position == 5.0
