"""What asks for attention in a run. An alert stays listed until it is dismissed, even when its cause has passed."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from engine.rundir import ALIVE, RunDir
from wmdd_tui.store.view import RunView

CONSOLE_LINES = 3
CONSOLE_BYTES = 4096
#: Below either, the disk counts as nearly full.
LOW_DISK_BYTES = 1 << 30
LOW_DISK_SHARE = 0.01
SILENT_ENDS = {"finished", "failed", "stopped", "crashed", "queued"}


@dataclass(frozen=True)
class Alert:
    """One alert; ``lines`` follow its text."""

    text: str
    lines: tuple[str, ...] = ()


class AlertBook:
    """Collects the alerts of one run. Each cause is listed once, and again when it returns after having passed."""

    def __init__(self, run: RunDir) -> None:
        self._run = run
        self._listed: list[Alert] = []
        self._seen = 0
        self._end: object = None
        self._state = ""
        self._disk_low = False

    def listed(self) -> list[Alert]:
        """Alerts not yet dismissed, oldest first."""
        return list(self._listed)

    def dismiss(self) -> int:
        """Forget what is listed; returns how many there were."""
        count = len(self._listed)
        self._listed.clear()
        return count

    def update(self, state: str, view: RunView, free: str) -> None:
        """Look at the newest state; ``free`` is the warning of ``low_disk``, empty when there is room."""
        for text in view.alerts[self._seen :]:
            self._add(text)
        self._seen = len(view.alerts)
        if free and not self._disk_low:
            self._add(free)
        self._disk_low = bool(free)
        self._note_end(view)
        if state != self._state:
            self._note_state(state)
            self._state = state

    def _note_end(self, view: RunView) -> None:
        end = view.end
        if end is None or end is self._end:
            return
        self._end = end
        if end.status == "failed":
            self._add(f"failed: {end.error}: {end.message}", *([end.remedy] if end.remedy else []))
        elif end.status == "stopped":
            self._add("stopped; resume it with r")

    def _note_state(self, state: str) -> None:
        if state == "crashed":
            last = console_tail(self._run)
            then = "; its last lines:" if last else ""
            self._add(f"crashed: the engine's process is gone without a word; resume it with r{then}", *last)
        elif state == "stalled":
            self._add("stalled: the engine is alive but has been silent for over 30 s")
        elif state not in ALIVE | SILENT_ENDS:
            self._add(f"{state}; the last data stay on screen")

    def _add(self, text: str, *lines: str) -> None:
        self._listed.append(Alert(" ".join(text.split()), tuple(" ".join(line.split()) for line in lines)))


def low_disk(path: Path) -> str:
    """A warning when the disk that holds a path is nearly full; empty when it is not, or cannot be asked."""
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return ""
    if usage.free >= max(LOW_DISK_BYTES, LOW_DISK_SHARE * usage.total):
        return ""
    return f"the disk is nearly full: {usage.free / (1 << 20):.0f} MiB are free where the run is written"


def console_tail(run: RunDir) -> list[str]:
    """The last lines the engine printed."""
    try:
        with run.console_file.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - CONSOLE_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return ["".join(c for c in line if c.isprintable()) for line in lines if line.strip()][-CONSOLE_LINES:]
