"""Memory and load of device and host."""

from __future__ import annotations

from textual.app import ComposeResult

from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.gauge import Gauge
from wmdd_tui.widgets.memory_parts import device_parts, host_parts
from wmdd_tui.widgets.painted import Lines
from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.rank_rows import rank_lines


class MemoryPanel(Panel):
    """GPU memory where there is a GPU, the host's figures everywhere, and the ranks of a run on several devices."""

    _text = ""

    def compose(self) -> ComposeResult:
        yield Lines(id="ranks")
        yield Lines(id="device")
        yield Gauge(id="device-gauge")
        yield Lines(id="device-notes")
        yield Lines(id="host")
        yield Gauge(id="host-gauge")
        yield Lines(id="host-notes")

    def basis(self, view: RunView) -> object:
        return [view.memory, view.ranks.rows()]

    def draw(self, view: RunView) -> None:
        memory, ranks = view.memory, rank_lines(view.ranks.rows())
        self.query_one("#ranks").display = bool(ranks)
        self._put("#ranks", "\n".join(ranks))
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
        lines = (*ranks, head, below, host.text, host.legend(), *host.notes)
        self._text = "\n".join(line for line in lines if line)

    def _put(self, selector: str, text: str) -> None:
        self.query_one(selector, Lines).update(text)

    def as_text(self) -> str:
        return self._text
