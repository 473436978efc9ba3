"""The distribution: real features, barycenters and synthetic images of some classes in the plane, and their figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import DataTable
from textual.worker import get_current_worker

from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.store import embedded
from wmdd_tui.store.embedded import METHODS, Embedding, Placed, Wanted
from wmdd_tui.store.view import RunView
from wmdd_tui.theme import class_colours
from wmdd_tui.widgets.painted import Lines
from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.scatter import Scatter, letter_of
from wmdd_tui.widgets.table import RowTable

if TYPE_CHECKING:
    from wmdd_tui.app import Settings

METHOD_NAMES = {"pca": "PCA", "t-sne": "t-SNE"}
#: A class has a letter of its own up to this number.
MOST_CLASSES = 26
FIRST_CLASSES = 10
NAME_WIDTH = 12
#: Columns of figures, and the width of a panel from which on they are shown.
FIGURES = (("W2²", 7, 0), ("random", 7, 70), ("least", 7, 100), ("cov %", 6, 0), ("random", 7, 70))


@dataclass
class Told(Message):
    """Words in place of the picture of a request: what is missing, how far the work is, what went wrong."""

    key: str
    text: str

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Told)


@dataclass
class Answered(Message):
    """The picture of what was wanted."""

    key: str
    found: Embedding


class DistributionPanel(Panel):
    """A scatter and a table; the row under the cursor comes to the front of the scatter, the first row shows all.

    Measuring is left to a process; what it answered is kept, so the panel opens at once the next time.
    """

    EVERY = 2.0

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(run, settings, id, classes)
        self._names: list[str] = []
        self._chosen: tuple[int, ...] = ()
        self._method = METHODS[0]
        self._key = ""
        self._found: Embedding | None = None
        self._columns: tuple[int, ...] = ()
        self._told = ""

    def compose(self) -> ComposeResult:
        yield Lines(id="told")
        with Horizontal(id="picture"):
            yield Scatter(self.settings.ascii)
            yield RowTable()

    def on_mount(self) -> None:
        self.query_one(RowTable).cell_padding = 0
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._fill(anew=True))
        self._swap()

    def on_resize(self) -> None:
        self._fill()

    # --- asking --------------------------------------------------------------------------------------------

    def basis(self, view: RunView) -> object:
        return {stage: times.seconds for stage, times in view.stages.items()}, view.hello, view.end

    def draw(self, view: RunView) -> None:
        self._names = view.hello.class_names if view.hello else []
        self._ask()

    def _ask(self) -> None:
        """Ask for the picture, unless just this one is shown, being made, or known to be impossible."""
        wanted = Wanted(self.run, embedded.words_of(self._chosen, self._names), self._method)
        if (key := wanted.key()) != self._key:
            self._key = key
            self._answer(wanted, key)

    @work(thread=True, exclusive=True, group="embedding", exit_on_error=False)
    def _answer(self, wanted: Wanted, key: str) -> None:
        worker = get_current_worker()

        def tell(text: str) -> None:
            self.post_message(Told(key, text))

        try:
            if lacking := embedded.lacking(wanted.run):
                tell(lacking)
                return
            found = embedded.kept(wanted)
            if found is None:
                told = f"measuring classes and projecting them by {METHOD_NAMES[wanted.method]}"
                tell(f"{told} …")
                found = embedded.measure(wanted, lambda far: tell(f"{told}\n{far}"), lambda: worker.is_cancelled)
        except EngineError as error:
            tell(str(error))
        else:
            if found is not None:
                self.post_message(Answered(key, found))

    @on(Told)
    def _tell(self, message: Told) -> None:
        if message.key == self._key:  # what an earlier request still says concerns nobody
            self._found, self._told = None, message.text
            self._swap()

    @on(Answered)
    def _show(self, message: Answered) -> None:
        if message.key != self._key:
            return
        self._found = message.found
        shown, count = self._found.classes, len(self._names) or len(self._found.classes)
        dot = "." if self.settings.ascii else "⠂"
        other = METHOD_NAMES[next(one for one in METHODS if one != self._method)]
        of_all = f"{len(shown)} of {count}" if len(shown) < count else f"{count}"
        self._told = (
            f"{METHOD_NAMES[self._found.method]} of {of_all} classes · {dot} real, a synthetic, A barycenter"
            f" · t: {other} · C: classes"
        )
        self._swap()
        self._fill(anew=True)
        if self.has_class("-current") and self.screen.focused is None:
            self.take_focus()  # the table has come where words stood

    def _swap(self) -> None:
        """Words alone, or one line of them above the picture."""
        picture = self.query_one("#picture")
        if picture.display != (self._found is not None):
            picture.display = self._found is not None
        line = Text(self._told, no_wrap=True, overflow="ellipsis") if self._found else Text(self._told)
        self.query_one("#told", Lines).update(line)

    # --- figures -------------------------------------------------------------------------------------------

    def _fill(self, anew: bool = False) -> None:
        """The table, with the columns there is room for; a row that was in front stays there."""
        if self._found is None or not self.size.width:
            return
        columns = tuple(index for index, (_, _, least) in enumerate(FIGURES) if self.size.width >= least)
        if columns == self._columns and not anew:
            return
        self._columns = columns
        table = self.query_one(RowTable)
        under = table.cursor_row
        table.clear(columns=True)
        table.add_column(Text("class"), width=NAME_WIDTH + 2)
        for index in columns:
            title, width, _ = FIGURES[index]
            table.add_column(Text(title, justify="right"), width=width)
        colours = class_colours(self.app.current_theme.dark)
        for row, cells in enumerate(self._rows()):
            name = Text(cells[0], no_wrap=True, overflow="ellipsis")
            if row:
                name.stylize(colours[(row - 1) % len(colours)], 0, 1)
            table.add_row(
                name,
                *(Text(cells[1 + index], justify="right") for index in columns),
            )
        table.styles.width = NAME_WIDTH + 2 + sum(FIGURES[index][1] for index in columns) + 1
        table.move_cursor(row=min(under, table.row_count - 1), animate=False)
        self._front()

    def _rows(self) -> list[tuple[str, ...]]:
        """The mean of all classes, then each class."""
        shown = self._found.classes if self._found else []
        figures = [figures_of(one) for one in shown]
        means = []
        for column in zip(*figures, strict=True):
            known = [value for value in column if value is not None]
            means.append(sum(known) / len(known) if known else None)
        rows = [("all: mean", *map(_cell, means, DECIMALS))]
        rows += [
            (f"{letter_of(index)} {one.name}", *map(_cell, values, DECIMALS))
            for index, (one, values) in enumerate(zip(shown, figures, strict=True))
        ]
        return rows

    @on(DataTable.RowHighlighted)
    def _front(self) -> None:
        if self._found is not None:
            row = self.query_one(RowTable).cursor_row
            self.query_one(Scatter).show(self._found.classes, row - 1 if row > 0 else None)

    # --- keys ----------------------------------------------------------------------------------------------

    def step(self, by: int) -> bool:
        """The class before or after comes to the front."""
        if self._found is None:
            return False
        table = self.query_one(RowTable)
        table.move_cursor(row=max(0, min(table.cursor_row + by, table.row_count - 1)), animate=False)
        return True

    def leave(self) -> bool:
        """From one class back to all."""
        if self._found is None or self.query_one(RowTable).cursor_row == 0:
            return False
        self.query_one(RowTable).move_cursor(row=0, animate=False)
        return True

    def cycle_term(self) -> str:
        """The other projection."""
        self._method = METHODS[(METHODS.index(self._method) + 1) % len(METHODS)]
        self._ask()
        return METHOD_NAMES[self._method]

    def chosen(self, count: int) -> tuple[int, ...]:
        """Numbers of the classes that are shown of a run with so many."""
        return self._chosen or tuple(range(min(FIRST_CLASSES, count)))

    def choose(self, labels: tuple[int, ...]) -> None:
        """Show other classes."""
        self._chosen = labels
        self.query_one(RowTable).move_cursor(row=0, animate=False)
        self._ask()

    def as_text(self) -> str:
        if self._found is None:
            return self._told
        titles = ("class", "W2²", "W2² of random real", "W2² of barycenter", "coverage %", "coverage % of random real")
        return "\n".join("\t".join(row) for row in [(self._told,), titles, *self._rows()])


DECIMALS = ("4g", "4g", "4g", "1f", "1f")


def figures_of(one: Placed) -> tuple[float | None, ...]:
    """The figures of a class in the order of the columns."""
    return one.w2_images, one.w2_random, one.w2_barycenter, one.coverage, one.coverage_random


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:.{form}}"
