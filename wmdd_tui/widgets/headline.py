"""The lines above the panels: run, state, time; latest figures; alerts. Pure functions of the view."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from engine import events
from engine.rundir import ALIVE, RunDir
from wmdd_tui.actions import PANELS
from wmdd_tui.store.view import RunView
from wmdd_tui.theme import duration, size, state_text
from wmdd_tui.widgets.stage_strip import stage_line
from wmdd_tui.widgets.views import TERM_NAMES, StageFacts, elapsed, stage_facts

if TYPE_CHECKING:
    from wmdd_tui.app import Settings

CONSOLE_LINES = 3
ENDED = {"finished", "failed", "stopped", "crashed"}


def headline(run: RunDir, state: str, view: RunView, settings: Settings, frozen: bool, dark: bool) -> Text:
    """State, name, elapsed, ETA and speed."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append_text(state_text(state, settings.ascii, dark))
    text.append(" FROZEN" if frozen else "", style="bold reverse")
    text.append(f" · {duration(elapsed(view, state in ALIVE, time.time()))}")
    facts = stage_facts(view)
    if state in ALIVE and facts.rate:
        text.append(f" · {facts.rate:.3g} {facts.unit}/s · ETA {duration(facts.eta)}")
    text.append(f" · {run.id}")
    if view.hello is not None:
        text.append(f" · {view.hello.device}")
    return text


def stages(view: RunView, state: str, ascii_only: bool, narrow: bool) -> Text:
    """The stage strip of a view."""
    if view.hello is None:
        return Text("waiting for the engine …" if state in ALIVE else "the engine wrote nothing")
    facts: StageFacts = stage_facts(view)
    current = facts.current if state in ALIVE else ""
    return stage_line(view.hello.stages, facts.done, current, facts.percent, ascii_only, narrow)


def figures(view: RunView) -> Text:
    """The latest figures, which stand whatever panel is shown."""
    parts = []
    for stage, who in (("train", "student"), ("squeeze", "teacher")):
        found = [one.top1 for one in view.metrics if one.stage == stage and one.top1 is not None]
        if found:
            parts.append(f"{who} {found[-1]:.2f} %")
    losses = {term: series.last for term, series in view.losses.items() if series.last is not None}
    if "total" in losses:
        parts.append(f"loss {losses['total']:.4g}")
    if view.memory is not None:
        allocated = view.memory.allocated
        parts.append(f"RSS {size(view.memory.rss)}" if allocated is None else f"GPU {size(allocated)}")
    parts += [f"{TERM_NAMES.get(term, term)} {value:.4g}" for term, value in losses.items() if term != "total"]
    return Text(" · ".join(parts) or "no figures yet", no_wrap=True, overflow="ellipsis")


def tabs(names: Sequence[str], current: str, visible: Callable[[str], bool]) -> Text:
    """The numbered panels; the current one is reversed, hidden ones are in brackets."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for number, name in enumerate(names, start=1):
        title = f" {number} {PANELS[name].replace('BN per layer', 'BN')} "
        text.append(title, style="bold reverse" if name == current else "" if visible(name) else "dim")
    return text


def alerts(run: RunDir, state: str, view: RunView) -> list[str]:
    """What asks for attention, oldest first."""
    found = [" ".join(alert.split()) for alert in view.alerts]
    end = view.end
    if end is not None and end.status == "failed":
        found.append(f"failed: {end.error}: {' '.join(end.message.split())}")
        found += [" ".join(end.remedy.split())] if end.remedy else []
    elif end is not None and end.status == "stopped":
        found.append("stopped; resume it with r in the list of runs")
    if state == "crashed":
        found.append("the engine's process is gone without a word; its last lines:")
        found += console_tail(run)
    elif state == "stalled":
        found.append("stalled: the engine is alive but has been silent for over 30 s")
    elif state not in ALIVE | ENDED and state != "queued":
        found.append(f"{state}; the last data stay on screen")
    return found


def console_tail(run: RunDir) -> list[str]:
    """The last lines the engine printed."""
    try:
        with run.console_file.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return ["".join(c for c in line if c.isprintable()) for line in lines if line.strip()][-CONSOLE_LINES:]


def log_line(event: events.Log) -> str:
    """One line of the log: time, level where it matters, message."""
    stamp = time.strftime("%H:%M:%S", time.localtime(event.t))
    level = "" if event.level == "info" else f"{event.level.upper()}: "
    return f"{stamp} {level}{' '.join(event.message.split())}"
