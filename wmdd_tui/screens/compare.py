"""Two or more runs side by side: their curves, their results, and only the settings that differ."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import DataTable, Footer, Static

from engine.config import RunConfig, option_keys
from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.store.reader import EventTail
from wmdd_tui.store.runs import RunSummary, summarise
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.picture import Picture
from wmdd_tui.widgets.plan import value_at
from wmdd_tui.widgets.views import overlay

TERMS = ("total", "ce", "feature", "bn")
RESULTS = ("run", "state", "top-1", "best", "teacher top-1", "IPC", "λ", "seed")


@dataclass(frozen=True)
class Compared:
    """One run as the comparison shows it."""

    summary: RunSummary
    config: RunConfig | None
    view: RunView
    sheet: Path | None


@dataclass
class Loaded(Message):
    """All runs have been read."""

    runs: list[Compared]


def load(run: RunDir) -> Compared:
    """Read a run's files."""
    tail, view = EventTail(run.events_file), RunView()
    while batch := tail.poll():
        for event in batch:
            view.apply(event)
    try:
        config = run.config()
    except EngineError:
        config = None
    sheet = run.report / "contact_sheet.png"
    return Compared(summarise(run), config, view, sheet if sheet.is_file() else None)


def differing(configs: list[RunConfig | None]) -> list[tuple[str, list[str]]]:
    """Options whose values are not the same in all runs, with each run's value."""
    dumps = [config.model_dump(mode="json") if config else None for config in configs]
    rows = []
    for key in option_keys():
        values = ["?" if dump is None else str(value_at(dump, key)) for dump in dumps]
        if len(set(values)) > 1:
            rows.append((key, values))
    return rows


class CompareScreen(ActionScreen):
    """Overlaid curves over two tables; ``t`` chooses the term of the loss."""

    SCOPE = "compare"
    CSS_PATH = "compare.tcss"
    BINDINGS = bindings("compare")

    def __init__(self, runs: list[RunDir]) -> None:
        super().__init__()
        self._runs = runs
        self._loaded: list[Compared] = []
        self._term = 0

    def compose(self) -> ComposeResult:
        yield Static(f"Compare · {len(self._runs)} runs · reading …", id="title", markup=False)
        yield LossChart(ascii=self.cockpit.settings.ascii, id="curves")
        with Horizontal(id="sheets"):
            for index in range(min(4, len(self._runs))):
                yield Picture(id=f"sheet-{index}")
        with Vertical(id="tables"):
            yield DataTable(id="results", cursor_type="row")
            yield DataTable(id="differences", cursor_type="row")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        self.query_one("#differences").focus()
        self._read()

    @work(thread=True, exclusive=True, group="compare", exit_on_error=False)
    def _read(self) -> None:
        self.post_message(Loaded([load(run) for run in self._runs]))

    @on(Loaded)
    def _show(self, message: Loaded) -> None:
        self._loaded = message.runs
        results = self.query_one("#results", DataTable)
        results.add_columns(*RESULTS)
        for one in message.runs:
            row = one.summary
            tops = ["" if top is None else f"{top:.2f}" for top in (row.last_top1, row.best_top1, row.teacher_top1)]
            cells = [self._label(one), row.state, *tops, str(row.ipc), f"{row.r_bn:g}", str(row.seed)]
            results.add_row(*[Text(cell) for cell in cells])
        table = self.query_one("#differences", DataTable)
        table.add_columns(Text("setting"), *[Text(self._label(one)) for one in message.runs])
        rows = differing([one.config for one in message.runs])
        for key, values in rows:
            table.add_row(Text(key), *[Text(value) for value in values])
        if not rows:
            table.add_row(Text("(no setting differs)"), *[Text("") for _ in message.runs])
        for index, one in enumerate(message.runs[:4]):
            if one.sheet is not None and not self.cockpit.settings.slow_link:
                self.query_one(f"#sheet-{index}", Picture).show(one.sheet, self._label(one))
        self._draw()

    def _label(self, one: Compared) -> str:
        names = [other.summary.name for other in self._loaded]
        name = one.summary.name if names.count(one.summary.name) < 2 else one.summary.id
        return " ".join(name.split())[:28]

    def _draw(self) -> None:
        term = TERMS[self._term]
        self.query_one("#title", Static).update(f"Compare · {len(self._runs)} runs · {term} loss")
        series = {self._label(one): one.view.losses.get(term) for one in self._loaded}
        self.query_one(LossChart).show(overlay({name: found for name, found in series.items() if found is not None}))

    def action_scale(self) -> None:
        self.query_one(LossChart).cycle_scale()

    def action_smooth(self) -> None:
        self.query_one(LossChart).toggle_smooth()

    def action_term(self) -> None:
        self._term = (self._term + 1) % len(TERMS)
        self._draw()

    def action_zoom(self, factor: float) -> None:
        self.query_one(LossChart).zoom(factor)

    def action_reset(self) -> None:
        self.query_one(LossChart).reset()
