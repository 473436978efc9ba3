"""Memory and load of device and host."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.gauge import Gauge
from wmdd_tui.widgets.memory_parts import device_parts, host_parts
from wmdd_tui.widgets.panels.base import Panel


class MemoryPanel(Panel):
    """GPU memory where there is a GPU, and the host's figures everywhere."""

    _text = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="device", markup=False)
        yield Gauge(id="device-gauge")
        yield Static("", id="device-notes", markup=False)
        yield Static("", id="host", markup=False)
        yield Gauge(id="host-gauge")
        yield Static("", id="host-notes", markup=False)

    def draw(self, view: RunView) -> None:
        memory = view.memory
        if memory is None:
            self._put("#host", "no figures yet")
            return
        device, host = device_parts(memory), host_parts(memory)
        gauge = self.query_one("#device-gauge", Gauge)
        gauge.display = self.query_one("#device-notes").display = device is not None
        head, below = "no GPU in use: the host's memory is what counts", ""
        if device is not None:
            gauge.show(device.parts, device.total, device.peak)
            head, below = device.text, "\n".join([device.legend(), *device.notes, ""])
        self._put("#device", head)
        self._put("#device-notes", below)
        self._put("#host", host.text)
        self.query_one("#host-gauge", Gauge).show(host.parts, host.total, host.peak)
        self._put("#host-notes", "\n".join([host.legend(), *host.notes]))
        self._text = "\n".join(line for line in (head, below, host.text, host.legend(), *host.notes) if line)

    def _put(self, selector: str, text: str) -> None:
        """Change a text only when it differs: an update re-sends its region."""
        found = self.query_one(selector, Static)
        if found.content != text:
            found.update(text)

    def as_text(self) -> str:
        return self._text
