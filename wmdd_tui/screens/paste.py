"""A place to paste a command or TOML into."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static, TextArea

from engine.errors import EngineError
from wmdd_tui.cli.pasted import Pasted, read_pasted


class Paste(ModalScreen[Pasted | None]):
    """Answers with what the text asks for, or None by escape; a text that cannot be read stays, with the reason."""

    CSS_PATH = "paste.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r,f5", "take", "Fill the form", priority=True),
        Binding("escape", "cancel", "Cancel", priority=True),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="paper"):
            yield Static("Paste a `wmdd-tui run …` command, or TOML.", markup=False)
            yield TextArea(id="pasted")
            yield Static("", id="wrong", markup=False)
            yield Static("ctrl+r fills the form, esc leaves", classes="keys")

    def action_take(self) -> None:
        try:
            found = read_pasted(self.query_one("#pasted", TextArea).text)
        except EngineError as error:
            self.query_one("#wrong", Static).update(str(error))
        else:
            self.dismiss(found)

    def action_cancel(self) -> None:
        self.dismiss(None)
