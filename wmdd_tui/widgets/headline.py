"""The lines above the panels: run, state, time; latest figures; alerts. Pure functions of the view."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from engine import events
from engine.rundir import ALIVE, RunDir
from wmdd_tui.actions import PANELS
from wmdd_tui.names import as_name
from wmdd_tui.store.alerts import Alert
from wmdd_tui.store.view import RunView
from wmdd_tui.theme import duration, size, state_text
from wmdd_tui.widgets.stage_strip import stage_line
from wmdd_tui.widgets.views import TERM_NAMES, elapsed, stage_facts

if TYPE_CHECKING:
    from wmdd_tui.app import Settings


def headline(run: RunDir, state: str, view: RunView, settings: Settings, frozen: bool, dark: bool) -> Text:
    """State, name, elapsed, ETA and speed, or what is done where no unit is."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append_text(state_text(state, settings.ascii, dark))
    text.append(" FROZEN" if frozen else "", style="bold reverse")
    text.append(f" · reading {100 * view.share:.0f} %" if view.share < 1 else "")
    if passed := duration(elapsed(view, state in ALIVE, time.time())):
        text.append(f" · {passed}")
    facts = stage_facts(view)
    if state in ALIVE and facts.note:
        text.append(f" · {facts.note}")
    elif state in ALIVE and facts.rate:
        text.append(f" · {facts.rate:.3g} {facts.unit}/s · ETA {duration(facts.eta)}")
    text.append(f" · {as_name(run.id)}")
    if view.hello is not None:
        text.append(f" · {device_text(view.hello.device)}")
    return text


def device_text(device: str) -> str:
    """A device as its engine called it, with one thread in the singular."""
    return device.removesuffix("s") if device.endswith(", 1 threads") else device


def stages(view: RunView, state: str, ascii_only: bool, narrow: bool) -> Text:
    """The stage strip of a view."""
    if view.hello is None:
        return Text("waiting for the engine …" if state in ALIVE else "the engine wrote nothing")
    facts = stage_facts(view)
    return stage_line(
        view.hello.stages, facts.done, facts.current, facts.percent, ascii_only, narrow, alive=state in ALIVE
    )


def figures(view: RunView) -> Text:
    """The latest figures, which stand whatever panel is shown."""
    parts = []
    for who, stages in (("student", ("train",)), ("teacher", ("squeeze", "teacher"))):
        found = [one.top1 for one in view.metrics if one.stage in stages and one.top1 is not None]
        if found:
            parts.append(f"{who} {found[-1]:.2f} %")
    losses = {term: series.last for term, series in view.losses.items() if series.last is not None}
    first, rest = ("total", "bn"), ("ce", "feature")  # what stands last is cut off first
    names = {**TERM_NAMES, "total": "loss"}
    parts += [f"{names[term]} {losses[term]:.4g}" for term in first if term in losses]
    if view.memory is not None:
        allocated = view.memory.allocated
        parts.append(f"RSS {size(view.memory.rss)}" if allocated is None else f"GPU {size(allocated)}")
    parts += [f"{names[term]} {losses[term]:.4g}" for term in rest if term in losses]
    return Text(" · ".join(parts) or "no figures yet", no_wrap=True, overflow="ellipsis")


def tabs(names: Sequence[str], current: str, visible: Callable[[str], bool]) -> Text:
    """The numbered panels; the current one is reversed, hidden ones are in brackets."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, name in enumerate(names, start=1):
        title = f" {number} {PANELS[name].replace('BN per layer', 'BN')} "
        text.append(title, style="bold reverse" if name == current else "" if visible(name) else "dim")
    return text


def alert_lines(listed: Sequence[Alert], rows: int, ascii_only: bool) -> Text:
    """The newest alerts that fit into some rows, each with its lines; above them how many there are.

    One that announces an engine's last lines, where there are none, says what to do instead.
    """
    sign = "! " if ascii_only else "▲ "
    lines = []
    for alert in listed:
        lines += [f"{sign}{alert.text}", *[f"  {line}" for line in alert.lines]]
    left_out = len(lines) - rows
    if left_out > 0:
        lines = [f"{sign}{len(listed)} alerts; a dismisses them; the last lines:", *lines[left_out + 1 :]]
    return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")


def log_line(event: events.Log) -> str:
    """One line of the log: time, level where it matters, message."""
    stamp = time.strftime("%H:%M:%S", time.localtime(event.t))
    level = "" if event.level == "info" else f"{event.level.upper()}: "
    return f"{stamp} {level}{' '.join(event.message.split())}"
