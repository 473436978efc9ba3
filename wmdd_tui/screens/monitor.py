"""Watching one run, alive or finished: losses, layers, memory, images, log, evaluation."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from threading import Event, Lock

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.message import Message
from textual.widgets import Input, Static
from textual.worker import get_current_worker

from engine.rundir import ALIVE, RESUMABLE, RunDir
from wmdd_tui.actions import PANELS
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.choose_classes import ChooseClasses
from wmdd_tui.screens.control import ask_stop, resume, toggle_pause
from wmdd_tui.screens.exporting import export_charts
from wmdd_tui.store.ahead import Ahead
from wmdd_tui.store.alerts import AlertBook
from wmdd_tui.store.exports import write_text
from wmdd_tui.store.following import Follower
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets import headline
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.key_bar import KeyBar
from wmdd_tui.widgets.painted import Lines
from wmdd_tui.widgets.panels import KINDS, DistributionPanel, LayerPanel, LogPanel, LossPanel, Panel
from wmdd_tui.widgets.panels.distribution import MOST_CLASSES

POLL_SECONDS = 0.25
SLOW_SECONDS = 2.0
#: On a slow link panels are drawn so many times less often.
SLOW_PACE = 8
#: A panel due within this time is drawn now rather than a tick later; and within this share of its pace, along with
#: another that is drawn, for few frames of much cost less than many of little.
EARLY_SECONDS = 0.1
EARLY_SHARE = 0.25
#: The latest figures stand in the header too, where they are not the first thing one looks at.
FIGURE_SECONDS = 1.0
FIGURES = "figures"
ALERT_ROWS = 6
FEW_ALERT_ROWS = 4
#: What the filter makes other content of; the images see to themselves.
FILTERED = ("layers", "log")
#: Measured only for those who ask: it takes processor time, and the room of panels that tell of the run at work.
HIDDEN_AT_FIRST = ("distribution",)


@dataclass
class Advanced(Message):
    """The view holds new events, or the state changed."""

    state: str
    low_disk: str

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Advanced)


class MonitorScreen(ActionScreen):
    """One run. The reader thread applies events to the view and holds the lock while it does."""

    SCOPE = "monitor"
    CSS_PATH = "monitor.tcss"
    BINDINGS = bindings("monitor")
    AUTO_FOCUS = ""  # the first widget would be the hidden filter, which would take the keys

    def __init__(self, run: RunDir, ahead: Ahead | None = None) -> None:
        super().__init__()
        self.run = run
        self._ahead = ahead
        self.state = "starting"
        self.view = RunView()
        self.frozen = False
        self._current = "losses"
        self._hidden = set(HIDDEN_AT_FIRST)
        self._maximised = False
        self._alerts = AlertBook(run)
        self._asked_to_stop = False
        self._drawn_at: dict[str, float] = {}
        self._stale = {*KINDS, FIGURES}
        self._bases: dict[str, object] = {}
        self._waiting = False
        self._view_lock = Lock()
        self._drawn = Event()
        self._left = Event()

    def compose(self) -> ComposeResult:
        yield Lines(id="headline")
        yield Lines(id="stages")
        yield Lines(id="figures")
        yield Static("", id="alerts", markup=False)
        with Horizontal(id="bar"):
            yield Lines(id="tabs")
            yield Input(placeholder="filter layers and log", id="filter", compact=True)
        with Container(id="panels"):
            for number, (name, kind) in enumerate(KINDS.items(), start=1):
                panel = kind(self.run, self.cockpit.settings, id=f"panel-{name}", classes="panel")
                panel.border_title = f"{number} {PANELS[name]}"
                yield panel
        yield KeyBar(self._offers)

    def on_mount(self) -> None:
        self._arrange()
        self._panel(self._current).take_focus()
        self._follow()

    def on_unmount(self) -> None:
        self._left.set()
        self._drawn.set()

    @work(thread=True, exclusive=True, group="reader", exit_on_error=False)
    def _follow(self) -> None:
        """Read what the engine appends; one message a batch, and never one ahead of the screen."""
        worker = get_current_worker()
        follower = Follower(self.run, self.view, self._view_lock, self._ahead)
        seconds = SLOW_SECONDS if self.cockpit.settings.slow_link else POLL_SECONDS
        while not (self._left.is_set() or worker.is_cancelled):
            if follower.step(read=not self.frozen):
                self._drawn.clear()
                self.post_message(Advanced(follower.state, follower.disk))
                self._drawn.wait()
            if follower.caught_up:
                self._left.wait(seconds)

    @on(Advanced)
    def _advanced(self, message: Advanced) -> None:
        changed, self.state = message.state != self.state, message.state
        with self._view_lock:
            self._alerts.update(message.state, self.view, message.low_disk)
            for name in KINDS:
                basis = self._panel(name).basis(self.view)
                if basis is None or basis != self._bases.get(name):
                    self._bases[name] = basis
                    self._stale.add(name)
        self._stale.add(FIGURES)
        if changed:
            self._draw()
            self.refresh_bindings()
        else:
            self._draw_due()
        self._drawn.set()

    # --- drawing -------------------------------------------------------------------------------------------

    @property
    def _alone(self) -> bool:
        """Whether one panel fills the screen."""
        return self._maximised or self.has_class("-narrow") or self.has_class("-short")

    def _visible(self, name: str) -> bool:
        return name == FIGURES or (name == self._current if self._alone else name not in self._hidden)

    def _panel(self, name: str) -> Panel:
        return self.query_one(f"#panel-{name}", Panel)

    def on_resize(self) -> None:
        self.call_after_refresh(self._arrange)

    def _arrange(self) -> None:
        """Show the panels wanted, in as many columns as fit, and redraw those that appeared."""
        shown = [name for name in KINDS if self._visible(name)]
        columns = 1 if len(shown) < 2 else 3 if self.has_class("-huge") and len(shown) > 4 else 2
        grid = self.query_one("#panels", Container)
        grid.styles.grid_size_columns = columns
        grid.styles.grid_size_rows = max(1, -(-len(shown) // columns))
        for name in KINDS:
            panel = self._panel(name)
            panel.display = name in shown
            panel.set_class(name == self._current, "-current")
        # Panels come back as they were and are then brought up to date, so a key shows at once; not on a slow link.
        stale = self._stale & {*shown, FIGURES}
        late = set() if self.cockpit.settings.slow_link else stale & self._drawn_at.keys()
        self._draw(stale - late)
        if late:
            self.call_after_refresh(self._draw, late)

    def _draw_due(self) -> None:
        """Draw the panels and figures whose pace allows it, and with any of them the rest of the header."""
        now, pace = time.monotonic(), SLOW_PACE if self.cockpit.settings.slow_link else 1
        waits, shares = {}, {}
        for name in filter(self._visible, self._stale):
            every = pace * (FIGURE_SECONDS if name == FIGURES else self._panel(name).EVERY)
            waits[name] = self._drawn_at.get(name, 0.0) + every - now
            shares[name] = waits[name] / every
        if waits and min(waits.values()) <= EARLY_SECONDS:
            self._draw([name for name in waits if waits[name] <= EARLY_SECONDS or shares[name] <= EARLY_SHARE])
        later = [wait for name, wait in waits.items() if name in self._stale]
        if later and not self._waiting:
            # Should no event follow, the panels left out are drawn all the same.
            self._waiting = True
            self.set_timer(min(later), self._draw_later)

    def _draw_later(self) -> None:
        self._waiting = False
        self._draw_due()

    def _draw(self, names: Collection[str] = (*KINDS, FIGURES)) -> None:
        """Bring header and visible panels up to the view."""
        settings = self.cockpit.settings
        with self._view_lock:
            view = self.view
            narrow = self.has_class("-narrow")
            dark = self.app.current_theme.dark
            self.query_one("#headline", Lines).update(
                headline.headline(self.run, self.state, view, settings, self.frozen, dark)
            )
            self.query_one("#stages", Lines).update(headline.stages(view, self.state, settings.ascii, narrow))
            self._draw_alerts()
            self.query_one("#tabs", Lines).update(headline.tabs(list(KINDS), self._current, self._visible))
            for name in names:
                if self._visible(name):
                    if view.hello:  # before it there is nothing to draw
                        self._drawn_at[name] = time.monotonic()
                    self._stale.discard(name)
                    if name == FIGURES:
                        self.query_one("#figures", Lines).update(headline.figures(view))
                    else:
                        self._panel(name).draw(view)

    def _draw_alerts(self) -> None:
        listed = self._alerts.listed()
        bar = self.query_one("#alerts", Static)
        bar.set_class(bool(listed), "-shown")
        rows = FEW_ALERT_ROWS if self.has_class("-short") else ALERT_ROWS
        text = headline.alert_lines(listed, rows, self.cockpit.settings.ascii)
        if bar.content != text:
            bar.update(text)

    # --- panels --------------------------------------------------------------------------------------------

    def action_panel(self, name: str) -> None:
        if self._alone:
            self._current = name
        elif name in self._hidden:
            self._hidden.discard(name)
            self._current = name
        elif name != self._current or len(self._hidden) == len(KINDS) - 1:
            self._current = name
        else:
            self._hidden.add(name)
            self._current = next(other for other in KINDS if other not in self._hidden)
        self._arrange()
        self._panel(self._current).take_focus()

    def action_maximise(self) -> None:
        self._maximised = not self._maximised
        self._arrange()

    @property
    def _chart(self) -> LossChart:
        """The chart of the current panel, or that of the losses."""
        return self._panel(self._current).chart() or self.query_one(LossPanel).query_one(LossChart)

    def action_scale(self) -> None:
        self._chart.cycle_scale()

    def action_smooth(self) -> None:
        self._chart.toggle_smooth()

    def action_zoom(self, factor: float) -> None:
        self._chart.zoom(factor)

    def action_pan(self, share: float) -> None:
        self._chart.pan(share)

    def action_reset(self) -> None:
        self._chart.reset()

    def action_cursor(self, step: int) -> None:
        if not self._panel(self._current).step(step):
            self._chart.move_cursor(step)

    def action_open(self) -> None:
        self._panel(self._current).enter()

    def action_term(self) -> None:
        panel = self._panel(self._current)
        name = panel.cycle_term() or self.query_one(LossPanel).cycle_term()
        self._draw()
        self.say(f"drawn: {name}")

    def action_classes(self) -> None:
        panel = self.query_one(DistributionPanel)
        names = self.view.hello.class_names if self.view.hello else []
        if not names:
            self.say("the run has not named its classes yet", bad=True)
            return
        if not self._visible("distribution"):
            self.action_panel("distribution")

        def answered(labels: tuple[int, ...] | None) -> None:
            if labels is not None:
                panel.choose(labels)

        self.app.push_screen(ChooseClasses(names, panel.chosen(len(names)), MOST_CLASSES), answered)

    def action_sort(self) -> None:
        name = self.query_one(LayerPanel).cycle_order()
        self._draw()
        self.say(f"layers by {name}")

    def step_back(self) -> bool:
        field = self.query_one("#filter", Input)
        if field.has_class("-open"):
            field.value = ""
            field.remove_class("-open")
            self._panel(self._current).take_focus()
            return True
        if self._panel(self._current).leave():
            return True
        if self._maximised:
            self.action_maximise()
            return True
        self.cockpit.left = self.run
        return False

    def action_follow(self) -> None:
        following = self.query_one(LogPanel).toggle_follow()
        self.say("following the log" if following else "the log stays where it is")

    def action_wrap(self) -> None:
        wrapping = self.query_one(LogPanel).toggle_wrap()
        self.say("long lines are broken" if wrapping else "long lines are cut at the edge")

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("-open")
        field.focus()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        for name in KINDS:
            self._panel(name).filter(event.value)
        self._draw(FILTERED)

    @on(Input.Submitted, "#filter")
    def _filter_done(self, event: Input.Submitted) -> None:
        event.input.set_class(bool(event.value), "-open")
        self._panel(self._current).take_focus()

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._panel(self._current).as_text())
        self._save("copied, and written to")

    def action_save(self) -> None:
        self._save("written to")

    def _save(self, done: str) -> None:
        """Write the panel's text where the dashboard keeps such files; the clipboard is not everywhere."""
        try:
            file = write_text(self.run, self._current, self._panel(self._current).as_text())
        except OSError as error:
            self.say(f"cannot write the panel to a file: {error.strerror}", bad=True)
        else:
            self.say(f"{done} {file}")

    def action_export(self) -> None:
        export_charts(self, [(self.run, self.run.id)], "charts")

    # --- display and run -----------------------------------------------------------------------------------

    def action_freeze(self) -> None:
        self.frozen = not self.frozen
        self._draw()

    def action_dismiss_alerts(self) -> None:
        count = self._alerts.dismiss()
        self.say(f"{count} alerts dismissed" if count else "there are no alerts")
        self._draw()

    def _offers(self, action: str) -> bool:
        """Of what changes the run, the footer names what its state allows."""
        if action == "resume":
            return self.state in RESUMABLE
        return action not in ("pause", "stop") or self.state in ALIVE

    def action_resume(self) -> None:
        resume(self, self.run)

    def action_pause(self) -> None:
        toggle_pause(self, self.run)

    def action_stop(self) -> None:
        def asked() -> None:
            self._asked_to_stop = True

        ask_stop(self, self.run, self._asked_to_stop, asked)
