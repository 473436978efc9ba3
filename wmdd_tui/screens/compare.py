"""Two or more runs side by side: curves, images, results, and only the settings that differ."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Static

from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.plotting import mosaic
from wmdd_tui.plotting.raster import MARKS
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.exporting import export_charts
from wmdd_tui.store.comparison import Comparison, compare, labels, result_rows, setting_text
from wmdd_tui.store.following import read_view
from wmdd_tui.store.pictures import one_of_each
from wmdd_tui.store.series import Series
from wmdd_tui.store.view import RunView
from wmdd_tui.theme import SIGNS, series_colours
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.key_bar import KeyBar
from wmdd_tui.widgets.picture import Picture, reason
from wmdd_tui.widgets.table import Table
from wmdd_tui.widgets.views import overlay, student_top1

TERMS = ("total", "ce", "feature", "bn")
#: What the chart can draw: the loss, each of its terms, the student's accuracy by epoch.
DRAWN = (*(f"{term} loss" for term in TERMS), "student top-1 % by epoch")
MOST_SHEETS = 6
#: Images of one run; a terminal has room for fewer.
MOST_TILES = 60
LABEL_LENGTH = 24


@dataclass
class Loaded(Message):
    """All runs have been read, or ``problem`` says why not."""

    found: Comparison | None
    views: list[RunView]
    problem: str = ""


@dataclass
class Sheet:
    """One image of each class of a run, and the labels of the classes; or words why there are none."""

    tiles: list[Image.Image] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    instead: str = ""


@dataclass
class Pictured(Message):
    """The images of a number have been read."""

    ordinal: int
    sheets: list[Sheet]


def read_sheet(run: RunDir, ordinal: int) -> Sheet:
    """The images of a number of a run's classes."""
    found = one_of_each(run.images, ordinal, MOST_TILES)
    try:
        tiles = mosaic.load([path for _, path in found])
    except (OSError, ValueError, SyntaxError) as error:
        return Sheet(instead=f"cannot be shown: {reason(error)}")
    classes = [one for one, _ in found]
    return Sheet(tiles, [one.label for one in classes], [one.id for one in classes], "no finished images")


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


def shortened(text: str) -> str:
    """A long name or path without its middle, for those of one family often differ at their ends."""
    half = LABEL_LENGTH // 2
    return text if len(text) <= LABEL_LENGTH else f"{text[: half - 1]}…{text[-half:]}"


class CompareScreen(ActionScreen):
    """Overlaid curves, or image grids side by side, over two tables; ``t`` chooses the curves, ``i`` the images."""

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
        self._ordinal = 0
        self._pictured: Pictured | None = None

    def compose(self) -> ComposeResult:
        yield Static(f"Compare · {len(self._runs)} runs · reading …", id="title", markup=False)
        yield LossChart(ascii=self.cockpit.settings.ascii, id="curves")
        with Horizontal(id="sheets"):
            for index in range(min(MOST_SHEETS, len(self._runs))):
                with Vertical():
                    yield Static("", id=f"sheet-label-{index}", markup=False)
                    yield Picture(id=f"sheet-{index}")
        with Vertical(id="tables"):
            yield Table(id="results")
            yield Table(id="differences")
        yield KeyBar()

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._name_sheets())
        self.query_one("#results").focus()
        self._read()

    @work(thread=True, exclusive=True, group="compare", exit_on_error=False)
    def _read(self) -> None:
        try:
            found = compare(self._runs)
        except EngineError as error:
            self.post_message(Loaded(None, [], str(error)))
            return
        self.post_message(Loaded(found, [read_view(run) for run in self._runs]))

    @work(thread=True, exclusive=True, group="images", exit_on_error=False)
    def _read_images(self, ordinal: int) -> None:
        self.post_message(Pictured(ordinal, [read_sheet(run, ordinal) for run in self._runs[:MOST_SHEETS]]))

    @on(Loaded)
    def _show(self, message: Loaded) -> None:
        if message.found is None:
            self.query_one("#title", Static).update(message.problem.splitlines()[0])
            return
        self._labels = [shortened(label) for label in labels(message.found.results)]
        self._views = message.views
        heads = [Text(f"{self._sign(index)} {label}") for index, label in enumerate(self._labels)]
        results = self.query_one("#results", Table)
        results.add_columns(Text("result"), *heads)
        for title, cells in result_rows(message.found.results):
            results.add_row(Text(title), *[Text(cell, justify="right") for cell in cells])
        if any(view.alerts for view in message.views):
            results.add_row(Text("alerts"), *[Text("; ".join(view.alerts)) for view in message.views])
        table = self.query_one("#differences", Table)
        table.add_columns(Text("setting that differs"), *heads)
        for key, values in message.found.differences:
            table.add_row(Text(key), *[Text(shortened(setting_text(value))) for value in values])
        if not message.found.differences:
            table.add_row(Text("(no setting differs)"), *[Text("") for _ in self._runs])
        self._name_sheets()
        self._draw()

    @on(Pictured)
    def _show_images(self, message: Pictured) -> None:
        """Grids of the same classes, so what stands at one place of each is the same class."""
        if message.ordinal != self._ordinal:
            return
        self._pictured = message
        for index, sheet in enumerate(message.sheets):
            view = self._views[index] if index < len(self._views) else RunView()
            known = view.hello.class_names if view.hello else []
            names = [
                known[label] if 0 <= label < len(known) else id
                for label, id in zip(sheet.labels, sheet.ids, strict=True)
            ]
            self.query_one(f"#sheet-{index}", Picture).show_tiles(sheet.tiles, names, sheet.instead)
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
        self.query_one("#title", Static).update(f"Compare · {self._title()}")
        found = [(index, one) for index, view in enumerate(self._views) if (one := self._curve(view)) is not None]
        series = [(self._labels[index], one) for index, one in found]
        unit = "iterations" if self._term < len(TERMS) else "epochs"
        self.query_one(LossChart).show(overlay(series, tuple(self._slots[index] for index, _ in found), unit))

    def _curve(self, view: RunView) -> Series | None:
        """What the chart draws of a run."""
        return view.losses.get(TERMS[self._term]) if self._term < len(TERMS) else student_top1(view)

    def _title(self) -> str:
        """What is shown, and of how many runs."""
        count = len(self._runs)
        if not self._images:
            return f"{count} runs · {DRAWN[self._term]}"
        of = f"the first {MOST_SHEETS} of {count} runs" if count > MOST_SHEETS else f"{count} runs"
        waiting = " · reading …" if self._pictured is None or self._pictured.ordinal != self._ordinal else ""
        return f"{of} · image {self._ordinal + 1} of each class · [ and ] show others{waiting}"

    def action_scale(self) -> None:
        self.query_one(LossChart).cycle_scale()

    def action_smooth(self) -> None:
        self.query_one(LossChart).toggle_smooth()

    def action_term(self) -> None:
        self._term = (self._term + 1) % len(DRAWN)
        self._draw()

    def action_images(self) -> None:
        self._images = not self._images
        self.set_class(self._images, "-images")
        if self._images and self._pictured is None:
            self._read_images(self._ordinal)
        self._draw()

    def action_zoom(self, factor: float) -> None:
        self.query_one(LossChart).zoom(factor)

    def action_pan(self, share: float) -> None:
        self.query_one(LossChart).pan(share)

    def action_cursor(self, step: int) -> None:
        if not self._images:
            self.query_one(LossChart).move_cursor(step)
            return
        most = max((view.hello.ipc for view in self._views if view.hello), default=1)
        wanted = max(0, min(self._ordinal + step, most - 1))
        if wanted != self._ordinal:
            self._ordinal = wanted
            self._read_images(wanted)
            self._draw()

    def action_reset(self) -> None:
        self.query_one(LossChart).reset()

    def action_export(self) -> None:
        export_charts(self, list(zip(self._runs, self._labels, strict=True)), "compared")
