"""Some classes out of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, SelectionList, Static
from textual.widgets.selection_list import Selection

#: Lines of the list; of more classes than this the filter picks.
MOST_LINES = 500


class ChooseClasses(ModalScreen[tuple[int, ...] | None]):
    """Answers with the numbers of the marked classes, in order; None by escape."""

    CSS_PATH = "choose.tcss"
    AUTO_FOCUS = "SelectionList"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("enter", "accept", "Show", priority=True),
        Binding("ctrl+a", "none", "None", show=False),
    ]

    def __init__(self, names: Sequence[str], marked: Sequence[int], most: int) -> None:
        super().__init__()
        self._names = names
        self._marked = set(marked)
        self._most = most

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(self._title(), id="title", markup=False)
            yield Input(placeholder="part of a name or number", id="part", compact=True)
            yield SelectionList[int]()
            yield Static("space marks, enter shows, tab filters, ctrl+a clears", classes="hint")

    def on_mount(self) -> None:
        self._fill("")

    def _title(self) -> str:
        return f"Classes of the distribution: {len(self._marked)} marked of {len(self._names)}, at most {self._most}"

    def _named(self, label: int) -> str:
        """Number and name, which may be one."""
        name = self._names[label]
        return name if name == str(label) else f"{label} {name}"

    @on(Input.Changed)
    def _filtered(self, event: Input.Changed) -> None:
        self._fill(event.value.lower())

    def _fill(self, part: str) -> None:
        """The classes that contain a text, marked as they are."""
        found = [label for label in range(len(self._names)) if part in self._named(label).lower()]
        listed = self.query_one(SelectionList)
        with self.prevent(SelectionList.SelectedChanged):
            listed.clear_options()
            listed.add_options(
                [Selection(Text(self._named(label)), label, label in self._marked) for label in found[:MOST_LINES]]
            )
        if listed.option_count:
            listed.highlighted = 0

    @on(SelectionList.SelectionToggled)
    def _toggled(self, event: SelectionList.SelectionToggled[int]) -> None:
        self._marked ^= {event.selection.value}
        self.query_one("#title", Static).update(self._title())

    def action_none(self) -> None:
        self._marked.clear()
        self._fill(self.query_one(Input).value.lower())
        self.query_one("#title", Static).update(self._title())

    def action_accept(self) -> None:
        if 0 < len(self._marked) <= self._most:
            self.dismiss(tuple(sorted(self._marked)))
        else:
            self.notify(f"mark 1 to {self._most} classes; {len(self._marked)} are marked", severity="error")
