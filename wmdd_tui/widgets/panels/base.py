"""What all panels of the monitor share."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical
from textual.geometry import Size
from textual.reactive import Reactive

from engine.rundir import RunDir
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart

if TYPE_CHECKING:
    from wmdd_tui.app import Settings


class Panel(Vertical):
    """One panel. ``draw`` is given the whole view, while the panel is visible and at most every ``EVERY`` seconds.

    A panel answers the keys that concern it; those that mean nothing to it do nothing and say so by returning "".
    """

    EVERY: ClassVar[float] = 1.0
    # Panels do not scroll, their parts do: see Painted.
    virtual_size = Reactive(Size(0, 0))

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(id=id, classes=classes)
        self.run = run
        self.settings = settings

    def draw(self, view: RunView) -> None:
        raise NotImplementedError

    def basis(self, view: RunView) -> object:  # noqa: ARG002
        """What the panel shows of a view changes only when this does; None where it changes all the time."""
        return None

    def as_text(self) -> str:
        """What copying and saving give."""
        raise NotImplementedError

    def take_focus(self) -> None:
        """Give the focus to what can be moved in; the screen keeps it where there is nothing."""
        self.screen.set_focus(next((child for child in self.query("*") if child.focusable and child.display), None))

    def chart(self) -> LossChart | None:
        """The chart that scale, smoothing, zoom and cursor keys concern, if the panel shows one."""
        return next((chart for chart in self.query(LossChart) if chart.display), None)

    def step(self, _by: int) -> bool:
        """Walk to a neighbour (the cursor keys); False leaves them to the chart."""
        return False

    def enter(self) -> None:
        """Go one level deeper."""

    def leave(self) -> bool:
        """Go one level back; False at the top."""
        return False

    def filter(self, _text: str) -> None:
        """Keep only what contains a text."""

    def cycle_order(self) -> str:
        """Change the order of the table; returns its name, or "" without a table to order."""
        return ""

    def cycle_term(self) -> str:
        """Change what the chart draws; returns its name, or "" without a choice."""
        return ""
