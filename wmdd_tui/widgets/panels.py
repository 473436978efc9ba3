"""The panels of the monitor. Each draws from the view it is given; only the image panel opens files, by picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import DataTable, Log, Static

from engine.rundir import RunDir
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.gauge import Gauge
from wmdd_tui.widgets.headline import log_line
from wmdd_tui.widgets.heatmap import Heatmap
from wmdd_tui.widgets.memory_parts import device_parts, host_parts
from wmdd_tui.widgets.picture import Picture
from wmdd_tui.widgets.views import LayerRow, curve_of, layer_history, layer_rows, loss_curves

if TYPE_CHECKING:
    from wmdd_tui.app import Settings

LOG_LINES = 5000


class Panel(Vertical):
    """One panel. ``draw`` is called with the whole view, and only while the panel is visible."""

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(id=id, classes=classes)
        self.run = run
        self.settings = settings

    def draw(self, view: RunView) -> None:
        raise NotImplementedError

    def take_focus(self) -> None:
        """Give the focus to what can be moved in; the screen keeps it where there is nothing."""
        self.screen.set_focus(next((child for child in self.query("*") if child.focusable), None))

    def as_text(self) -> str:
        """What copying gives."""
        raise NotImplementedError


class LossPanel(Panel):
    """Total, cross-entropy, feature and BN loss over the iterations of all chunks."""

    _text = ""

    def compose(self) -> ComposeResult:
        yield LossChart(ascii=self.settings.ascii)

    def draw(self, view: RunView) -> None:
        self.query_one(LossChart).show(loss_curves(view))
        lasts = {name: series.last for name, series in view.losses.items()}
        self._text = "\n".join(f"{name}\t{value}" for name, value in lasts.items())

    def cycle_scale(self) -> None:
        self.query_one(LossChart).cycle_scale()

    def toggle_smooth(self) -> None:
        self.query_one(LossChart).toggle_smooth()

    def zoom(self, factor: float) -> None:
        self.query_one(LossChart).zoom(factor)

    def pan(self, share: float) -> None:
        self.query_one(LossChart).pan(share)

    def reset(self) -> None:
        self.query_one(LossChart).reset()

    def move_cursor(self, step: int) -> None:
        self.query_one(LossChart).move_cursor(step)

    def as_text(self) -> str:
        return self._text


class LayerPanel(Panel):
    """The BatchNorm term of every layer: over time as a heatmap, and as a table."""

    _filter = ""
    _rows: list[LayerRow] = []

    def compose(self) -> ComposeResult:
        yield Heatmap()
        yield DataTable(cursor_type="row")

    def on_mount(self) -> None:
        table = self.query_one(DataTable)
        for key in ("layer", "value", "share", "trend"):
            table.add_column(key, key=key)

    def filter(self, text: str) -> None:
        self._filter = text.lower()

    def draw(self, view: RunView) -> None:
        rows = [row for row in layer_rows(view, self.settings.ascii) if self._filter in row.name.lower()]
        matrix, names = layer_history(view, self._filter)
        if names:
            self.query_one(Heatmap).show(matrix, names, "")
        table = self.query_one(DataTable)
        if [row.name for row in rows] != [row.name for row in self._rows]:
            table.clear()
            for row in rows:
                table.add_row(*[Text(cell) for cell in row.cells], key=row.name)
        else:
            for old, new in zip(self._rows, rows, strict=True):
                for column, before, now in zip(("layer", "value", "share", "trend"), old.cells, new.cells, strict=True):
                    if before != now:
                        table.update_cell(new.name, column, Text(now))
        self._rows = rows

    def as_text(self) -> str:
        return "\n".join("\t".join(row.cells) for row in self._rows)


class MemoryPanel(Panel):
    """GPU memory where there is a GPU, and the host's figures everywhere."""

    _text = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="device", markup=False)
        yield Gauge(id="device-gauge")
        yield Static("", id="host", markup=False)
        yield Gauge(id="host-gauge")

    def draw(self, view: RunView) -> None:
        memory = view.memory
        if memory is None:
            self.query_one("#host", Static).update("no figures yet")
            return
        device, host = device_parts(memory), host_parts(memory)
        gauge = self.query_one("#device-gauge", Gauge)
        gauge.display = device is not None
        lines = ["no GPU in use: the host's memory is what counts"]
        if device is not None:
            gauge.show(device.parts, device.total, device.peak)
            lines = [device.text, *device.notes]
        self.query_one("#device", Static).update("\n".join(lines))
        self.query_one("#host", Static).update("\n".join([host.text, *host.notes]))
        self.query_one("#host-gauge", Gauge).show(host.parts, host.total, host.peak)
        self._text = "\n".join([*lines, host.text, *host.notes])

    def as_text(self) -> str:
        return self._text


class ImagePanel(Panel):
    """The chunk being recovered, live; the arrow keys walk through the finished images."""

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(run, settings, id, classes)
        self._files: list[Path] = []
        self._index: int | None = None
        self._shown = ""
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Static("no image yet", id="caption", markup=False)
        yield Picture()

    def on_resize(self) -> None:
        """A picture given while the panel had no size is painted once it has one."""
        self.call_after_refresh(self.query_one(Picture).refresh)

    def draw(self, view: RunView) -> None:
        self._view = view
        if self._index is not None or view.image is None or (self.settings.slow_link and self._shown):
            return
        names = view.hello.class_names if view.hello else []
        labels = dict.fromkeys(view.image.classes)
        classes = ", ".join(names[label] if label < len(names) else str(label) for label in labels)
        total = view.hello.iterations if view.hello else 0
        told = f"live: chunk {view.image.chunk + 1}, iteration {view.image.iteration}/{total} · {classes}"
        self._put(self.run.path / view.image.path, told)

    def browse(self, step: int) -> None:
        """The next or previous finished image; before the first comes the live one."""
        if not self._files:
            self._files = sorted(self.run.images.rglob("*.png"))
        if not self._files:
            self.query_one("#caption", Static).update("no finished images yet")
            return
        index = (-1 if self._index is None else self._index) + step
        self._index = None if index < 0 else min(index, len(self._files) - 1)
        if self._index is None:
            self._shown, self._files = "", []
            if self._view is not None:
                self.draw(self._view)
            return
        file = self._files[self._index]
        names = self._view.hello.class_names if self._view and self._view.hello else []
        label = file.stem.removeprefix("class").split("_")[0]
        name = names[int(label)] if label.isdigit() and int(label) < len(names) else file.parent.name
        self._put(file, f"{self._index + 1}/{len(self._files)} · {name} · {file.relative_to(self.run.images)}")

    def _put(self, file: Path, caption: str) -> None:
        if self._shown != caption:
            self._shown = caption
            self.query_one("#caption", Static).update(" ".join(caption.split()))
            self.query_one(Picture).show(file, "")

    def as_text(self) -> str:
        return self._shown


class LogPanel(Panel):
    """What the engine said, and what ended it."""

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(run, settings, id, classes)
        self._filter = ""
        self._written = 0
        self._lines: list[str] = []

    def compose(self) -> ComposeResult:
        yield Log(max_lines=LOG_LINES)

    def filter(self, text: str) -> None:
        self._filter = text.lower()
        self.query_one(Log).clear()
        self._written = 0

    def toggle_follow(self) -> bool:
        """Follow the end or stay; returns which."""
        log = self.query_one(Log)
        log.auto_scroll = not log.auto_scroll
        return log.auto_scroll

    def draw(self, view: RunView) -> None:
        self._lines = [log_line(event) for event in view.log]
        wanted = [line for line in self._lines if self._filter in line.lower()]
        log = self.query_one(Log)
        if len(wanted) < self._written:
            log.clear()
            self._written = 0
        log.write_lines(wanted[self._written :])
        self._written = len(wanted)

    def as_text(self) -> str:
        return "\n".join(self._lines)


class MetricsPanel(Panel):
    """Loss and accuracies by epoch: the student's, and above them the teacher's."""

    _cells: list[tuple[str, ...]] = []
    _columns = ("stage", "epoch", "loss", "top-1", "top-5")

    def compose(self) -> ComposeResult:
        yield LossChart(ascii=self.settings.ascii)
        yield DataTable(cursor_type="row")

    def on_mount(self) -> None:
        self.query_one(DataTable).add_columns(*self._columns)

    def draw(self, view: RunView) -> None:
        self.query_one(LossChart).show(curve_of(view))
        cells: list[tuple[str, ...]] = [
            (
                one.stage,
                f"{one.epoch}/{one.epochs}",
                f"{one.loss:.4g}" if isinstance(one.loss, float | int) else str(one.loss),
                "" if one.top1 is None else f"{one.top1:.2f}",
                "" if one.top5 is None else f"{one.top5:.2f}",
            )
            for one in view.metrics
        ]
        table = self.query_one(DataTable)
        if cells[: len(self._cells)] != self._cells:
            table.clear()
            self._cells = []
        for row in cells[len(self._cells) :]:
            table.add_row(*[Text(cell) for cell in row])
        if len(cells) > len(self._cells):
            table.move_cursor(row=len(cells) - 1, animate=False)
        self._cells = cells

    def as_text(self) -> str:
        return "\n".join("\t".join(row) for row in [self._columns, *self._cells])
