"""What all screens share: bindings from the action table, and the switch that keeps runs untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.worker import Worker, WorkerState

from wmdd_tui import actions

if TYPE_CHECKING:
    from wmdd_tui.app import WmddApp


def bindings(scope: actions.Scope) -> list[BindingType]:
    """The bindings of one scope."""
    return [
        Binding(action.key, action.action, action.title, show=action.footer, tooltip=action.help, id=action.name)
        for action in actions.of_scope(scope)
    ]


class ActionScreen(Screen[None]):
    """A screen whose keys stand in the action table under its ``SCOPE``."""

    SCOPE: ClassVar[actions.Scope]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide"), (180, "-huge")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (32, "-tall")]

    @property
    def cockpit(self) -> WmddApp:
        """The app, by its own type."""
        return cast("WmddApp", self.app)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002  (Textual's)
        return not (self.cockpit.settings.readonly and actions.changes_run(self.SCOPE, action))

    @on(Worker.StateChanged)
    def _worker_failed(self, event: Worker.StateChanged) -> None:
        """A thread that ends in a fault nobody foresaw says so; without it a screen would just stand still."""
        if event.state is WorkerState.ERROR:
            error = event.worker.error
            self.say(f"a fault of the dashboard ({event.worker.group}): {type(error).__name__}: {error}", bad=True)

    def step_back(self) -> bool:
        """Undo one level within the screen; False when escape should leave it."""
        return False

    def say(self, message: str, bad: bool = False) -> None:
        """A short notice; the text is shown literally."""
        self.notify(message, severity="error" if bad else "information", markup=False)
