"""Home: all runs, whoever started them, and what one can do with each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Input, Static
from textual.worker import get_current_worker

from engine import queueing, rundir
from engine.errors import EngineError
from engine.queueing import Place
from engine.rundir import RunDir
from wmdd_tui.screens import opening
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.control import ask_stop, resume, toggle_pause
from wmdd_tui.store import deleting
from wmdd_tui.store.pictures import thumbnails
from wmdd_tui.store.pins import read_pins, write_pins
from wmdd_tui.store.runs import RunSummary, Summaries
from wmdd_tui.widgets.key_bar import KeyBar
from wmdd_tui.widgets.picture import Picture
from wmdd_tui.widgets.run_facts import facts_of
from wmdd_tui.widgets.run_rows import COLUMNS, FOR_WIDE, ORDERS, cells_of, chosen, signs
from wmdd_tui.widgets.table import Table

if TYPE_CHECKING:
    from PIL import Image

POLL_SECONDS = 1.0
SLOW_SECONDS = 5.0
#: Images in the preview of a run; the largest screen has room for as many.
THUMBNAILS = 20


@dataclass
class Listed(Message):
    """A fresh list of runs."""

    summaries: list[RunSummary]
    places: dict[str, Place]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Listed)


class RunsScreen(ActionScreen):
    """The table of runs with a preview of the highlighted one."""

    SCOPE = "runs"
    CSS_PATH = "runs.tcss"
    BINDINGS = bindings("runs")
    AUTO_FOCUS = ""

    def __init__(self) -> None:
        super().__init__()
        self._summaries: dict[str, RunSummary] = {}
        self._places: dict[str, Place] = {}
        self._columns: list[tuple[str, str]] = []
        self._cells: dict[str, list[Text]] = {}
        self._marked: set[str] = set()
        self._pinned = read_pins()
        self._asked: set[str] = set()
        self._order = 0
        self._previewed: object = None
        self._left = Event()
        self._wake = Event()
        self._loaded = False
        self._in_front = Event()

    def compose(self) -> ComposeResult:
        yield Static("", id="title", markup=False)
        yield Input(placeholder="filter: part of a name, state, dataset …", id="filter", compact=True)
        with Container(id="body"):
            yield Static(self._welcome(), id="empty")
            yield Table(id="table")
            with VerticalScroll(id="preview", can_focus=False):
                yield Static("", id="facts")
                yield Picture(id="thumbnails")
        yield KeyBar()

    def _welcome(self) -> Text:
        return Text.assemble(
            "No runs yet.\n\n", "Press ", ("d", "bold"), " to start the digits demo:\n",
            "distil 100 images of handwritten digits, about a minute on two cores.\n\n",
            "Press ", ("n", "bold"), " for the form of a new run, ", ("?", "bold"), " for all keys.",
        )  # fmt: skip

    def on_mount(self) -> None:
        self._arrange()
        self.query_one("#table", Table).focus()
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._refresh_table())
        self._watch()

    def on_unmount(self) -> None:
        self._left.set()
        self._wake.set()
        self._in_front.set()

    @work(thread=True, exclusive=True, group="runs", exit_on_error=False)
    def _watch(self) -> None:
        worker = get_current_worker()
        seconds = SLOW_SECONDS if self.cockpit.settings.slow_link else POLL_SECONDS
        summaries = Summaries()
        while True:
            self._in_front.wait()  # a list that nobody sees costs time, and its changes traffic
            if self._left.is_set() or worker.is_cancelled:
                return
            places = {place.run_id: place for place in queueing.places()}
            self.post_message(Listed(summaries.listed(rundir.list_runs()), places))
            self._wake.wait(seconds)
            self._wake.clear()

    def on_screen_resume(self) -> None:
        self._return()
        self._in_front.set()
        self._wake.set()

    def on_screen_suspend(self) -> None:
        self._in_front.clear()

    def _return(self) -> None:
        """Put the cursor on the run whose monitor was left, or keys would concern another."""
        left = self.cockpit.left
        if left is not None and left.id in self._cells:
            self.query_one("#table", Table).move_cursor(row=list(self._cells).index(left.id), animate=False)
            self.cockpit.left = None

    # --- showing -------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self.call_after_refresh(self._arrange)

    def _arrange(self) -> None:
        """Give the table the columns there is room for."""
        columns = [column for column in COLUMNS if not (self.has_class("-narrow") and column[0] in FOR_WIDE)]
        if columns == self._columns:
            return
        self._columns = columns
        table, shown = self.query_one("#table", Table), self._shown()
        highlighted = self._highlighted()
        table.clear(columns=True)
        for key, title in columns:
            table.add_column(title, key=key)
        self._refill(table, shown, highlighted)

    @on(Listed)
    def _list(self, message: Listed) -> None:
        self._summaries = {summary.id: summary for summary in message.summaries}
        self._places = message.places
        self._marked &= self._summaries.keys()
        self._refresh_table()
        if self.is_current:
            self._return()
            self.cockpit.left = None
        if not self._loaded and self.is_current:
            self._loaded = True
            self.call_after_refresh(self._load_screens)

    @work(thread=True, group="load")
    def _load_screens(self) -> None:
        opening.load()

    def _refresh_table(self) -> None:
        table = self.query_one("#table", Table)
        shown = self._shown()
        self.set_class(not self._summaries, "-empty")
        wanted = [summary.id for summary in shown]
        if wanted != list(self._cells):
            self._refill(table, shown, self._highlighted())
        else:
            for summary in shown:
                self._update_row(table, summary)
        states = [summary.state for summary in self._summaries.values()]
        queued = states.count("queued")
        alive = sum(state in rundir.ALIVE for state in states) - queued
        counted = f"{len(states)} run{'s' * (len(states) != 1)}, {alive} alive" + (
            f", {queued} queued" if queued else ""
        )
        notes = [counted, f"order: {ORDERS[self._order]}"]
        notes += (
            [f"{len(self._pinned & self._summaries.keys())} pinned"] if self._pinned & self._summaries.keys() else []
        )
        notes += [f"{len(self._marked)} marked"] if self._marked else []
        notes += ["read-only"] if self.cockpit.settings.readonly else []
        self.query_one("#title", Static).update("wmdd-tui · " + " · ".join(notes))
        self._show_preview()

    def _refill(self, table: Table, shown: list[RunSummary], highlighted: str) -> None:
        """Rebuild when rows come, go or move; the highlighted run stays highlighted."""
        table.clear()
        self._cells = {summary.id: self._row(summary) for summary in shown}
        for key, cells in self._cells.items():
            table.add_row(*cells, key=key)
        if highlighted in self._cells:
            table.move_cursor(row=list(self._cells).index(highlighted), animate=False)

    def _update_row(self, table: Table, summary: RunSummary) -> None:
        before, now = self._cells[summary.id], self._row(summary)
        for (column, _), old, new in zip(self._columns, before, now, strict=True):
            if old != new:
                table.update_cell(summary.id, column, new, update_width=len(new) > len(old))
        self._cells[summary.id] = now

    def _shown(self) -> list[RunSummary]:
        text = self.query_one("#filter", Input).value
        return chosen(self._summaries.values(), text, ORDERS[self._order], self._pinned)

    def _row(self, row: RunSummary) -> list[Text]:
        only_ascii = self.cockpit.settings.ascii
        sign = signs(row.id in self._marked, row.id in self._pinned, only_ascii)
        cells = cells_of(row, self._places.get(row.id), sign, only_ascii, self.app.current_theme.dark)
        return [cell for column, cell in zip(COLUMNS, cells, strict=True) if column in self._columns]

    def _highlighted(self) -> str:
        table = self.query_one("#table", Table)
        keys = list(self._cells)
        return keys[table.cursor_row] if 0 <= table.cursor_row < len(keys) else ""

    def _selected(self) -> RunDir | None:
        summary = self._summaries.get(self._highlighted())
        if summary is None:
            self.say("no run is highlighted", bad=True)
            return None
        return RunDir(Path(summary.path))

    @on(DataTable.RowHighlighted)
    def _show_preview(self) -> None:
        summary = self._summaries.get(self._highlighted())
        seen = None if summary is None else (summary.id, summary.stage, summary.done, summary.state, summary.last_top1)
        if summary is None or seen == self._previewed:
            return
        self._previewed = seen
        self._load_preview(summary)

    @work(thread=True, exclusive=True, group="preview", exit_on_error=False)
    def _load_preview(self, summary: RunSummary) -> None:
        """Read the run's files away from the event loop."""
        run = RunDir(Path(summary.path))
        facts = facts_of(run, summary, self.cockpit.settings.ascii)
        tiles = [] if self.cockpit.settings.slow_link else thumbnails(run, THUMBNAILS)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._put_preview, facts, tiles)

    def _put_preview(self, facts: Text, tiles: list[Image.Image]) -> None:
        if not self.is_mounted:
            return
        self.query_one("#facts", Static).update(facts)
        picture = self.query_one("#thumbnails", Picture)
        picture.display = bool(tiles)
        picture.show_tiles(tiles)

    # --- actions -------------------------------------------------------------------------------------------

    @on(DataTable.RowSelected)
    def action_open(self) -> None:
        if run := self._selected():
            self.cockpit.watched = run
            self.app.push_screen(opening.monitor(run))

    def action_new(self) -> None:
        self.app.push_screen(opening.new_run())

    def action_demo(self) -> None:
        try:
            from engine import presets

            run = self.cockpit.start(presets.get("digits"))
        except EngineError as error:
            self.say(str(error), bad=True)
            return
        self.app.push_screen(opening.monitor(run))

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("-open")
        field.focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self) -> None:
        self._refresh_table()

    @on(Input.Submitted, "#filter")
    def _filter_done(self, event: Input.Submitted) -> None:
        event.input.set_class(bool(event.value), "-open")
        self.query_one("#table").focus()

    def step_back(self) -> bool:
        field = self.query_one("#filter", Input)
        if not field.has_class("-open"):
            return False
        field.value = ""
        field.remove_class("-open")
        self.query_one("#table").focus()
        return True

    def action_sort(self) -> None:
        self._order = (self._order + 1) % len(ORDERS)
        self._refresh_table()

    def action_mark(self) -> None:
        key = self._highlighted()
        if key:
            self._marked ^= {key}
            self._refresh_table()

    def action_pin(self) -> None:
        key = self._highlighted()
        if not key:
            return
        self._pinned ^= {key}
        try:
            write_pins(self._pinned)
        except OSError as error:
            self.say(f"the pin is forgotten when the dashboard closes: {error.strerror}", bad=True)
        self._refresh_table()

    def action_export(self) -> None:
        if run := self._selected():
            from wmdd_tui.screens.exporting import ask_export

            ask_export(self, run)

    def action_compare(self) -> None:
        chosen = [RunDir(Path(self._summaries[key].path)) for key in self._cells if key in self._marked]
        if len(chosen) < 2:
            self.say("mark two or more runs with space, then compare", bad=True)
        else:
            self.app.push_screen(opening.comparison(chosen))

    def action_duplicate(self) -> None:
        if run := self._selected():
            try:
                self.app.push_screen(opening.new_run(config=run.config()))
            except EngineError as error:
                self.say(str(error), bad=True)

    def action_resume(self) -> None:
        self._resume(queue=False)

    def action_resume_queued(self) -> None:
        self._resume(queue=True)

    def _resume(self, queue: bool) -> None:
        if (run := self._selected()) and resume(self, run, queue):
            self._wake.set()

    def action_shift(self, by: int) -> None:
        """Move the highlighted run in its queue."""
        run = self._selected()
        if run is None:
            return
        try:
            place = queueing.place_of(run)
            line = place.position if place is not None else 0
            place = queueing.move(run, max(1, line + by))
        except EngineError as error:
            self.say(str(error), bad=True)
            return
        self.say(f"{run.id}: place {place.position} on {place.device}")
        self._wake.set()

    def action_pause(self) -> None:
        if run := self._selected():
            toggle_pause(self, run)

    def action_stop(self) -> None:
        if run := self._selected():
            ask_stop(self, run, run.id in self._asked, lambda: self._asked.add(run.id))

    def action_delete(self) -> None:
        run = self._selected()
        if run is None:
            return
        try:
            deleting.refuse_alive(run)
        except EngineError as error:
            self.say(str(error), bad=True)
            return

        def answered(yes: bool | None) -> None:
            if not yes:
                return
            try:
                deleting.delete(run)
                self.say(f"{run.id} deleted")
            except EngineError as error:
                self.say(str(error), bad=True)
            self._wake.set()

        self.app.push_screen(Confirm(f"Delete {run.path} with its images and checkpoints?", "Delete"), answered)
