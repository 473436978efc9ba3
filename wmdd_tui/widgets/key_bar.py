"""The line of keys at the foot of a screen."""

from __future__ import annotations

from textual.screen import Screen
from textual.widgets import Footer


class KeyBar(Footer):
    """Textual's footer, made anew only when what it shows has changed: every change of the focus calls for it."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False, compact=True)
        self._shown: list[tuple[str, str, bool]] | None = None

    def bindings_changed(self, screen: Screen[object]) -> None:
        if not (screen.app.app_focus and self.is_attached):
            return
        active = screen.active_bindings.values()
        shown = [(binding.key, binding.description, enabled) for _, binding, enabled, _ in active if binding.show]
        if shown != self._shown:
            self._shown = shown
            super().bindings_changed(screen)
