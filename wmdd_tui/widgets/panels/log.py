"""What the engine said."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.widgets import Log

from engine.rundir import RunDir
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.headline import log_line
from wmdd_tui.widgets.panels.base import Panel

if TYPE_CHECKING:
    from wmdd_tui.app import Settings

LOG_LINES = 5000
STAMP = " " * 9
NOTHING_LOGGED = "nothing was logged yet"
NOTHING_FOUND = "no line of the log holds the text of the filter: /"


def wrapped(lines: Sequence[str], width: int) -> list[str]:
    """Lines broken at a width; what follows is indented under the message. A width too small breaks nothing."""
    if width <= 2 * len(STAMP):
        return list(lines)
    found: list[str] = []
    for line in lines:
        found += textwrap.wrap(line, width, subsequent_indent=STAMP) or [""]
    return found


class LogPanel(Panel):
    """The engine's log, followed at its end or held, filtered, wrapped or cut at the edge."""

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(run, settings, id, classes)
        self._filter = ""
        self._wrap = False
        self._written: list[str] = []
        self._lines: list[str] = []
        self._empty = NOTHING_LOGGED
        self._at_end = True

    def compose(self) -> ComposeResult:
        yield Log(max_lines=LOG_LINES)

    def on_mount(self) -> None:
        self.watch(self.query_one(Log), "scroll_y", self._scrolled, init=False)

    def _scrolled(self) -> None:
        self._at_end = self.query_one(Log).is_vertical_scroll_end

    def _follow(self) -> None:
        """Show the end once all has its size, unless it is held or was left.

        The widget alone loses it when it becomes smaller.
        """

        def scroll() -> None:
            log = self.query_one(Log)
            if log.auto_scroll and self._at_end:
                log.scroll_end(animate=False, immediate=True)

        self.call_after_refresh(scroll)

    def filter(self, text: str) -> None:
        self._filter = text.lower()

    def toggle_follow(self) -> bool:
        """Follow the end or stay; returns which."""
        log = self.query_one(Log)
        log.auto_scroll = not log.auto_scroll
        if log.auto_scroll:
            log.scroll_end(animate=False)
        return log.auto_scroll

    def toggle_wrap(self) -> bool:
        """Break long lines or cut them at the edge; returns which."""
        self._wrap = not self._wrap
        self._write()
        return self._wrap

    def on_resize(self) -> None:
        if self._wrap:
            self._write()
        self._follow()

    def basis(self, view: RunView) -> object:
        return len(view.log), view.log[-1] if view.log else None, view.log[0] if view.log else None

    def draw(self, view: RunView) -> None:
        self._lines = [line for line in map(log_line, view.log) if self._filter in line.lower()]
        self._empty = NOTHING_FOUND if view.log else NOTHING_LOGGED
        self._write()

    def _write(self) -> None:
        """Append what is new; write everything anew where the lines before it are not the same any more."""
        log = self.query_one(Log)
        lines = self._lines or [self._empty]
        if self._wrap:
            lines = wrapped(lines, log.scrollable_content_region.width)
        if lines[: len(self._written)] != self._written:
            log.clear()
            self._written = []
        if len(lines) > len(self._written):
            log.write_lines(lines[len(self._written) :])
            self._follow()
        self._written = list(lines)

    def as_text(self) -> str:
        return "\n".join(self._lines)
