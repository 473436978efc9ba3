"""The line of keys at the foot of a screen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.screen import Screen
from textual.strip import Strip

from wmdd_tui.widgets.painted import Painted

GAP = " "


@dataclass(frozen=True)
class ShownKey:
    """One key: what simulates it, how it is written, what it does, whether it may be used now."""

    key: str
    display: str
    title: str
    help: str
    enabled: bool

    @property
    def width(self) -> int:
        return cell_len(f"{self.display} {self.title}")


class KeyBar(Painted):
    """The keys of the screen that are named in its footer; a click on one is as good as pressing it.

    Textual's own footer has a widget for each key, all made anew when one changes: two layouts of the whole screen
    whenever a field takes the focus. Here the cells that changed are painted.
    """

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-bar--key"}
    DEFAULT_CSS = """
    KeyBar {
        dock: bottom; height: 1; color: $footer-foreground; background: $footer-background;
        .key-bar--key { color: $footer-key-foreground; text-style: bold; }
    }
    """

    def __init__(self, offers: Callable[[str], bool] = lambda _action: True) -> None:
        """``offers`` says of an action whether it is named now; its key says why it is of no use where it is not."""
        super().__init__()
        self._offers = offers
        self.keys: list[ShownKey] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if not (screen.app.app_focus and self.is_attached and screen is self.screen):
            return
        found: dict[str, ShownKey] = {}
        for _, binding, enabled, tooltip in screen.active_bindings.values():
            if binding.show and self._offers(binding.action):  # of several keys of an action the first
                display = self.app.get_key_display(binding)
                shown = ShownKey(binding.key, display, binding.description, tooltip, enabled)
                found.setdefault(binding.action, shown)
        self.keys = list(found.values())
        self.repaint()

    def rows(self) -> list[Strip]:
        key_style = self.get_component_rich_style("key-bar--key", partial=True)
        segments = []
        for one in self.keys:
            dim = Style(dim=not one.enabled)
            segments += [Segment(one.display, key_style + dim), Segment(f" {one.title}", dim), Segment(GAP)]
        return [Strip(segments).simplify()]

    def _at(self, x: int) -> ShownKey | None:
        """The key drawn at a column."""
        for one in self.keys:
            if 0 <= x < one.width:
                return one
            x -= one.width + len(GAP)
        return None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        under = self._at(event.x)
        if self.tooltip != (told := under.help if under else None):
            self.tooltip = told

    def on_mouse_down(self, event: events.MouseDown) -> None:
        under = self._at(event.x)
        if under is not None and under.enabled:
            self.app.simulate_key(under.key)
        elif under is not None:
            self.app.bell()
