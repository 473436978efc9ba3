"""The Textual application: settings, themes, the stack of screens. It never imports torch."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

import wmdd_tui.terminal  # noqa: F401  (before textual, which reads its settings once)

# isort: split
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.screen import Screen

from engine.errors import ConfigError, EngineError
from engine.rundir import RunDir, create, find
from wmdd_tui import actions
from wmdd_tui.ascii_filter import AsciiFilter
from wmdd_tui.farewell import farewell
from wmdd_tui.keymap import keymap_file, load_keymap
from wmdd_tui.screens import opening
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.runs import RunsScreen
from wmdd_tui.store.launch import enqueue, launch
from wmdd_tui.theme import DARK, LIGHT, THEMES

if TYPE_CHECKING:
    from engine.config import RunConfig
    from wmdd_tui.store.ahead import Ahead
    from wmdd_tui.widgets.config_form import Draft

#: What does without a screen as much as can be done without one.
HEADLESS = {"runs": "runs", "new": "run", "monitor": "watch"}

#: What Python does not look through for rubbish by itself (``cli.opening``) is looked through by the clock.
RUBBISH_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """What the command line says about the screen."""

    readonly: bool = False
    slow_link: bool = False
    ascii: bool = False


class WmddApp(App[int]):
    """The cockpit. ``screen_name`` is runs, new or monitor; esc from any of them leads back to the runs."""

    TITLE = "wmdd-tui"
    # That of the runs too: the screen at the base of the stack does not have its own read.
    CSS_PATH: ClassVar[list[str | PurePath]] = ["app.tcss", "screens/runs.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = bindings("app")
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        screen_name: str = "runs",
        run: RunDir | None = None,
        preset: str | None = None,
        settings: Settings | None = None,
        theme: str | None = None,
        keymap: Mapping[str, str] | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        super().__init__()
        self.keymap = dict(keymap or {})
        self.settings = settings or Settings()
        self.watched: RunDir | None = run
        self.left: RunDir | None = None
        self.draft: Draft | None = None
        self._first = screen_name
        self._preset = preset
        self._ahead = ahead
        self._engines: list[subprocess.Popen[bytes]] = []
        for one in (DARK, LIGHT):
            self.register_theme(one)
        # Before any style is read: a theme that comes later has all of them read again.
        self.set_reactive(App.theme, THEMES[theme or "dark"].name)
        self.stylesheet.set_variables(self.get_css_variables())

    def get_default_screen(self) -> Screen[Any]:
        """The runs are the base of the stack; an empty screen below them would be laid out for nothing.

        Not by a mode of the app's: from Python 3.12 on its widgets would be mounted before it is on the stack.
        """
        return RunsScreen()

    def on_mount(self) -> None:
        self.set_interval(RUBBISH_SECONDS, lambda: gc.collect())
        self.set_keymap(self.keymap)
        if self.settings.ascii:
            self.add_class("-ascii")
            self._filters.append(AsciiFilter())
        if self._first == "new":
            self.push_screen(opening.new_run(self._preset))
        elif self._first == "monitor" and self.watched is not None:
            self.push_screen(opening.monitor(self.watched, self._ahead))

    def start(self, config: RunConfig, queue: bool = False) -> RunDir:
        """Create a run and start its engine, at once or behind what runs on its device. Raises EngineError."""
        return self.resume(create(config), queue)

    def resume(self, run: RunDir, queue: bool = False) -> RunDir:
        """Start an engine in an existing run directory. Raises EngineError."""
        if self.settings.readonly:
            raise EngineError("this dashboard is read-only", "start it without --readonly")
        self._engines.append(enqueue(run) if queue else launch(run))
        self.watched = run
        return run

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: the actions of the screen, then those of the app."""
        scope = screen.SCOPE if isinstance(screen, ActionScreen) else None
        for action in actions.in_palette(scope, self.settings.readonly):
            title = f"{action.title} ({actions.key_text(action, self.keymap)})"
            yield SystemCommand(title, action.help, partial(self.call_later, self.run_action, action.target))

    def action_help(self) -> None:
        scope = self.screen.SCOPE if isinstance(self.screen, ActionScreen) else None
        self.push_screen(Help(scope, self.settings.readonly, self.keymap))

    def action_leave(self) -> None:
        self.exit(0)

    async def action_back(self) -> None:
        if isinstance(self.screen, ActionScreen) and self.screen.step_back():
            return
        if len(self.screen_stack) > 1:
            self.pop_screen()

    def action_toggle_theme(self) -> None:
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name

    async def action_move(self, direction: str) -> None:
        """Move in the focused widget as its arrow key would."""
        for name in (f"cursor_{direction}", f"scroll_{direction}"):
            if self.focused is not None and hasattr(self.focused, f"action_{name}"):
                await self.run_action(name, self.focused)
                return


def run_app(
    screen: str = "runs",
    run: str | None = None,
    preset: str | None = None,
    readonly: bool = False,
    slow_link: bool = False,
    ascii: bool = False,
    theme: str | None = None,
    ahead: Ahead | None = None,
) -> int:
    """Show the dashboard until the user leaves; returns the exit code. Raises EngineError: unknown run, theme, key."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        told = f"the dashboard needs a terminal; without one use `wmdd-tui {HEADLESS[screen]}`"
        print(f"wmdd-tui: {told}", file=sys.stderr)
        return 2
    if theme is not None and theme not in THEMES:
        raise ConfigError(f"there is no theme '{theme}'", f"choose --theme {' or '.join(THEMES)}")
    watched = find(run or "") if screen == "monitor" or run is not None else None
    settings = Settings(readonly, slow_link, ascii)
    keymap = load_keymap(keymap_file())
    app = WmddApp("monitor" if watched else screen, watched, preset, settings, theme, keymap, ahead)
    code = app.run()
    print(farewell(app.watched), end="")
    return app.return_code or code or 0
