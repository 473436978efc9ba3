"""The keys of the screen below, and everywhere; written by the action table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from wmdd_tui import actions


class Help(ModalScreen[None]):
    """Closes by escape, ``?`` or ``q``."""

    CSS_PATH = "help.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "Close")]

    def __init__(self, scope: actions.Scope | None, readonly: bool, keymap: Mapping[str, str]) -> None:
        super().__init__()
        self._scopes: list[actions.Scope] = [*([scope] if scope else []), "app"]
        self._readonly = readonly
        self._keymap = keymap

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="keys") as pane:
            pane.border_title = "Keys"
            pane.border_subtitle = "esc closes"
            for scope in self._scopes:
                yield Static(Text(actions.SCOPES[scope], style="bold underline"))
                yield Static(self._table(scope))

    def _table(self, scope: actions.Scope) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(min_width=12, style="bold")
        table.add_column()
        for action in actions.of_scope(scope):
            off = self._readonly and action.changes_run
            table.add_row(
                Text(actions.key_text(action, self._keymap)), Text(action.help + (" (off: --readonly)" if off else ""))
            )
        return table
