"""Two or more runs side by side: curves, images, results, and only the settings that differ."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.plotting.raster import MARKS
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.exporting import export_charts
from wmdd_tui.store.comparison import Comparison, compare, labels, result_rows, setting_text
from wmdd_tui.store.reader import EventTail
from wmdd_tui.store.view import RunView
from wmdd_tui.theme import SIGNS, series_colours
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.picture import Picture
from wmdd_tui.widgets.views import overlay

TERMS = ("total", "ce", "feature", "bn")
MOST_SHEETS = 6
LABEL_LENGTH = 24


@dataclass
class Loaded(Message):
    """All runs have been read, or ``problem`` says why not. ``sheets`` holds None for a run without images."""

    found: Comparison | None
    views: list[RunView]
    sheets: list[Path | None]
    problem: str = ""


def read_view(run: RunDir) -> RunView:
    """A run's whole view."""
    tail, view = EventTail(run.events_file), RunView()
    while batch := tail.poll():
        for event in batch:
            view.apply(event)
    return view


def slots_of(ids: Sequence[str]) -> tuple[int, ...]:
    """A sign and colour for each run: from its id alone, unless an older run of the comparison has taken it."""
    taken: dict[str, int] = {}
    for one in sorted(set(ids)):
        wanted = zlib.crc32(one.encode()) % len(SIGNS)
        free = [
            slot % len(SIGNS) for slot in range(wanted, wanted + len(SIGNS)) if slot % len(SIGNS) not in taken.values()
        ]
        taken[one] = free[0] if free else wanted
    return tuple(taken[one] for one in ids)


class CompareScreen(ActionScreen):
    """Overlaid curves, or the image grids, over two tables; ``t`` chooses the term of the loss, ``i`` the images."""

    SCOPE = "compare"
    CSS_PATH = "compare.tcss"
    BINDINGS = bindings("compare")

    def __init__(self, runs: list[RunDir]) -> None:
        super().__init__()
        self._runs = runs
        self._labels = [run.id for run in runs]
        self._slots = slots_of([run.id for run in runs])
        self._views: list[RunView] = []
        self._term = 0
        self._images = False

    def compose(self) -> ComposeResult:
        yield Static(f"Compare · {len(self._runs)} runs · reading …", id="title", markup=False)
        yield LossChart(ascii=self.cockpit.settings.ascii, id="curves")
        with Horizontal(id="sheets"):
            for index in range(min(MOST_SHEETS, len(self._runs))):
                with Vertical():
                    yield Static("", id=f"sheet-label-{index}", markup=False)
                    yield Picture(id=f"sheet-{index}")
        with Vertical(id="tables"):
            yield DataTable(id="results", cursor_type="row")
            yield DataTable(id="differences", cursor_type="row")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._name_sheets())
        self.query_one("#results").focus()
        self._read()

    @work(thread=True, exclusive=True, group="compare", exit_on_error=False)
    def _read(self) -> None:
        try:
            found = compare(self._runs)
        except EngineError as error:
            self.post_message(Loaded(None, [], [], str(error)))
            return
        sheets = [run.report / "contact_sheet.png" for run in self._runs]
        self.post_message(
            Loaded(
                found,
                [read_view(run) for run in self._runs],
                [sheet if sheet.is_file() else None for sheet in sheets],
            )
        )

    @on(Loaded)
    def _show(self, message: Loaded) -> None:
        if message.found is None:
            self.query_one("#title", Static).update(message.problem.splitlines()[0])
            return
        self._labels = [label[:LABEL_LENGTH] for label in labels(message.found.results)]
        self._views = message.views
        heads = [Text(f"{self._sign(index)} {label}") for index, label in enumerate(self._labels)]
        results = self.query_one("#results", DataTable)
        results.add_columns(Text("result"), *heads)
        for title, cells in result_rows(message.found.results):
            results.add_row(Text(title), *[Text(cell, justify="right") for cell in cells])
        table = self.query_one("#differences", DataTable)
        table.add_columns(Text("setting that differs"), *heads)
        for key, values in message.found.differences:
            table.add_row(Text(key), *[Text(setting_text(value)) for value in values])
        if not message.found.differences:
            table.add_row(Text("(no setting differs)"), *[Text("") for _ in self._runs])
        self._name_sheets()
        for index, sheet in enumerate(message.sheets[:MOST_SHEETS]):
            if sheet is not None:
                self.query_one(f"#sheet-{index}", Picture).show(sheet, "")
        self._draw()

    def _sign(self, index: int) -> str:
        marks = MARKS if self.cockpit.settings.ascii else SIGNS
        return marks[self._slots[index] % len(marks)]

    def _name_sheets(self) -> None:
        colours = series_colours(self.app.current_theme.dark)
        for index, label in enumerate(self._labels[:MOST_SHEETS]):
            style = colours[self._slots[index] % len(colours)]
            text = Text(f"{self._sign(index)} {label}", style=style, no_wrap=True, overflow="ellipsis")
            self.query_one(f"#sheet-label-{index}", Static).update(text)

    def _draw(self) -> None:
        term = TERMS[self._term]
        shown = "images" if self._images else f"{term} loss"
        self.query_one("#title", Static).update(f"Compare · {len(self._runs)} runs · {shown}")
        found = [(index, view.losses[term]) for index, view in enumerate(self._views) if term in view.losses]
        series = {f"{self._labels[index]}": one for index, one in found}
        self.query_one(LossChart).show(overlay(series, tuple(self._slots[index] for index, _ in found)))

    def action_scale(self) -> None:
        self.query_one(LossChart).cycle_scale()

    def action_smooth(self) -> None:
        self.query_one(LossChart).toggle_smooth()

    def action_term(self) -> None:
        self._term = (self._term + 1) % len(TERMS)
        self._draw()

    def action_images(self) -> None:
        self._images = not self._images
        self.set_class(self._images, "-images")
        self._draw()

    def action_zoom(self, factor: float) -> None:
        self.query_one(LossChart).zoom(factor)

    def action_pan(self, share: float) -> None:
        self.query_one(LossChart).pan(share)

    def action_cursor(self, step: int) -> None:
        self.query_one(LossChart).move_cursor(step)

    def action_reset(self) -> None:
        self.query_one(LossChart).reset()

    def action_export(self) -> None:
        export_charts(self, list(zip(self._runs, self._labels, strict=True)), "compared")
