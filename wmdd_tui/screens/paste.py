"""A place to paste a command or TOML into."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea


class Paste(ModalScreen[str]):
    """Returns the text; an empty one when it was left by escape."""

    CSS_PATH = "paste.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r,f5", "take", "Fill the form", priority=True),
        Binding("escape", "cancel", "Cancel", priority=True),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="paper"):
            yield Static("Paste a `wmdd-tui run …` command or TOML; ctrl+r fills the form, esc leaves.", markup=False)
            yield TextArea(id="pasted")

    def action_take(self) -> None:
        self.dismiss(self.query_one("#pasted", TextArea).text)

    def action_cancel(self) -> None:
        self.dismiss("")
