"""The form of a new run, and beside it what the run amounts to."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Footer, Label, Select, Static

from engine import presets, queueing, rundir
from engine.catalog import DatasetFacts, find_datasets
from engine.config import RunConfig, to_toml
from engine.errors import EngineError
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.paste import Paste
from wmdd_tui.store.devices import Device, list_devices
from wmdd_tui.store.launch import check
from wmdd_tui.store.runs import RunSummary, list_summaries
from wmdd_tui.theme import size
from wmdd_tui.widgets.config_form import ConfigForm
from wmdd_tui.widgets.plan import KNOWN_CLASSES, command_for, from_pasted, plan_of

NO_CHOICE = "as in the form below"
NOW, QUEUE = "now", "queue"


@dataclass
class Found(Message):
    """Datasets under ``$WMDD_DATA``, runs whose teacher may be used again, and this machine's devices.

    ``busy`` counts by queue what runs and waits there.
    """

    datasets: list[DatasetFacts]
    teachers: list[RunSummary]
    devices: list[Device]
    busy: Counter[str]


@dataclass
class Checked(Message):
    """The engine's answer about a configuration."""

    answer: dict[str, Any]


class NewRunScreen(ActionScreen):
    """Preset, dataset and teacher pickers over the generated form."""

    SCOPE = "new"
    CSS_PATH = "new_run.tcss"
    BINDINGS = bindings("new")

    def __init__(self, preset: str | None = None, config: RunConfig | None = None) -> None:
        super().__init__()
        self._preset = preset if preset in presets.PRESETS else "digits"
        if config is not None and config.preset in presets.PRESETS:
            self._preset = config.preset
        self._given = config or presets.get(self._preset)
        self._config: RunConfig | None = self._given
        self._datasets: dict[str, DatasetFacts] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="pickers"):
            yield self._picker("preset", [(name, name) for name in presets.PRESETS], self._preset)
            yield self._picker("dataset", [(NO_CHOICE, "")], "")
            yield self._picker("teacher", [(NO_CHOICE, "")], "")
            yield self._picker("device", [(NO_CHOICE, "")], "")
            starts = [("at once", NOW), ("behind what runs on that device", QUEUE)]
            yield self._picker("start", starts, NOW)
        with Horizontal(id="body"):
            yield ConfigForm(self._given, id="form")
            with VerticalScroll(id="preview"):
                yield Static("", id="toml", markup=False)
        yield Static("", id="hint", markup=False)
        yield Static("", id="problem", markup=False)
        yield Static("", id="plan", markup=False)
        yield Static("", id="command", markup=False)
        yield Footer(show_command_palette=False, compact=True)

    def _picker(self, name: str, pairs: list[tuple[str, str]], value: str) -> Horizontal:
        select = Select(pairs, value=value, allow_blank=False, id=f"pick-{name}", compact=True)
        return Horizontal(Label(name), select)

    def on_mount(self) -> None:
        self.query_one("#field-name").focus()
        self.query_one(ConfigForm).validate_all()
        self._find()

    @work(thread=True, exclusive=True, group="find", exit_on_error=False)
    def _find(self) -> None:
        named = os.environ.get("WMDD_DATA", "")
        found = find_datasets([Path(named).expanduser()] if named else [])
        runs = [run for run in list_summaries(rundir.runs_root()) if run.state == "finished" and not run.problem]
        busy = Counter(place.device for place in queueing.places())
        self.post_message(Found(found, runs, list_devices(), busy))

    @on(Found)
    def _offer(self, message: Found) -> None:
        self._datasets = {facts.path: facts for facts in message.datasets}
        rows: list[tuple[Text, str]] = [
            (Text(NO_CHOICE), ""),
            (Text("digits (built in): 10 classes, 8×8 px"), "digits"),
        ]
        for facts in message.datasets:
            told = facts.problem or f"{facts.classes} classes, {facts.train_images} images, {size(facts.bytes)}"
            rows.append((Text(f"{facts.name} ({facts.kind}): {told}"), facts.path))
        self._set_options("#pick-dataset", rows)
        teachers: list[tuple[Text, str]] = [
            (Text(NO_CHOICE), ""), (Text("train it here"), "train"), (Text("torchvision weights"), "torchvision"),
            (Text("a checkpoint file: name it in teacher.path"), "checkpoint"),
        ]  # fmt: skip
        for run in message.teachers:
            top1 = "" if run.teacher_top1 is None else f", {run.teacher_top1:.2f} %"
            teachers.append((Text(f"run {run.name} ({run.id}): {run.teacher} on {run.dataset}{top1}"), run.path))
        self._set_options("#pick-teacher", teachers)
        rows = [(Text(NO_CHOICE), ""), (Text("auto: the first GPU, else the CPU"), "auto")]
        for device in message.devices:
            room = f", {size(device.free)} of {size(device.total)} free" if device.total else ""
            count = message.busy[device.key]
            work = f", {count} run{'s' * (count != 1)} there" if count else ""
            rows.append((Text(f"{device.name}: {device.title}{room}{work}"), device.name))
        self._set_options("#pick-device", rows)

    def _set_options(self, selector: str, rows: list[tuple[Text, str]]) -> None:
        select: Select[str] = self.query_one(selector, Select)
        with select.prevent(Select.Changed):
            select.set_options(rows)
            select.value = ""

    # --- pickers -------------------------------------------------------------------------------------------

    @on(Select.Changed, "#pick-preset")
    def _preset_chosen(self, event: Select.Changed) -> None:
        if event.value != self._preset:
            self._preset = str(event.value)
            self.query_one(ConfigForm).fill(presets.get(self._preset))
            self._hint(presets.describe(self._preset))

    @on(Select.Changed, "#pick-dataset")
    def _dataset_chosen(self, event: Select.Changed) -> None:
        form, path = self.query_one(ConfigForm), str(event.value)
        if path == "digits":
            form.put({"data.dataset": "digits", "data.path": ""})
        elif path in self._datasets:
            form.put({"data.dataset": self._datasets[path].kind, "data.path": path})
            if problem := self._datasets[path].problem:
                self.say(f"{path}: {problem}", bad=True)

    @on(Select.Changed, "#pick-teacher")
    def _teacher_chosen(self, event: Select.Changed) -> None:
        form, choice = self.query_one(ConfigForm), str(event.value)
        if choice in ("train", "torchvision"):
            form.put({"teacher.source": choice, "teacher.path": ""})
        elif choice == "checkpoint":
            form.put({"teacher.source": choice})
            self.query_one("#field-teacher-path").focus()
        elif choice:
            form.put({"teacher.source": "run", "teacher.path": choice})

    @on(Select.Changed, "#pick-device")
    def _device_chosen(self, event: Select.Changed) -> None:
        if event.value:
            self.query_one(ConfigForm).put({"run.device": str(event.value)})

    @on(Select.Changed, "#pick-start")
    def _start_chosen(self) -> None:
        if self._config is not None:
            self._show_plan(self._config)

    def _queued(self) -> bool:
        return bool(self.query_one("#pick-start", Select).value == QUEUE)

    # --- preview -------------------------------------------------------------------------------------------

    @on(ConfigForm.Explained)
    def _explain(self, message: ConfigForm.Explained) -> None:
        self._hint(message.text)

    def _hint(self, text: str) -> None:
        self.query_one("#hint", Static).update(text)

    @on(ConfigForm.Changed)
    def _changed(self, message: ConfigForm.Changed) -> None:
        self._config = message.config
        problem = self.query_one("#problem", Static)
        problem.set_class(message.config is None, "-shown")
        problem.update(message.error)
        if message.config is not None:
            self._show_plan(message.config)

    def _show_plan(self, config: RunConfig) -> None:
        facts = self._datasets.get(config.data.path)
        classes = KNOWN_CLASSES.get(config.data.dataset) or (facts.classes if facts else 0)
        plan = plan_of(config, classes, rundir.home())
        if classes:
            told = (
                f"{plan.images} images in {plan.chunks} chunk{'s' * (plan.chunks != 1)} · {plan.iterations} iterations"
                f" · writes about {size(plan.disk)}, {size(plan.free)} free"
            )
        else:
            told = f"classes not counted yet (f6 checks the data) · {size(plan.free)} free"
        if classes and plan.disk > plan.free:
            told = "NOT ENOUGH DISK: " + told
        self.query_one("#plan", Static).update(told)
        self.query_one("#command", Static).update("$ " + self._command(config))
        self.query_one("#toml", Static).update(to_toml(config))

    # --- actions -------------------------------------------------------------------------------------------

    def _valid(self) -> RunConfig | None:
        if self._config is None:
            wrong = self.query_one("#problem", Static)
            self.say(f"not yet: {wrong.content}", bad=True)
        return self._config

    def _command(self, config: RunConfig) -> str:
        return command_for(config, self._preset) + (" --queue" if self._queued() else "")

    def action_launch(self) -> None:
        config = self._valid()
        if config is None:
            return
        try:
            run = self.cockpit.start(config, queue=self._queued())
        except EngineError as error:
            self.say(str(error), bad=True)
            return
        self.app.switch_screen(MonitorScreen(run))

    def action_check(self) -> None:
        if config := self._valid():
            self._hint("the engine looks at data, teacher and device …")
            self._check(config)

    @work(thread=True, exclusive=True, group="check", exit_on_error=False)
    def _check(self, config: RunConfig) -> None:
        try:
            answer = check(config)
            facts = answer if isinstance(answer, dict) else {name: getattr(answer, name) for name in answer.__slots__}
        except EngineError as error:
            facts = {"ok": False, "error": error.message, "remedy": error.remedy}
        self.post_message(Checked(facts))

    @on(Checked)
    def _checked(self, message: Checked) -> None:
        answer = message.answer
        if not answer.get("ok"):
            self.say(f"{answer.get('error', '')}\n{answer.get('remedy', '')}".strip(), bad=True)
            self._hint("not usable: " + str(answer.get("error", "")))
            return
        parts = []
        for name in ("dataset", "teacher"):
            facts = answer.get(name)
            if isinstance(facts, dict):
                parts.append(
                    f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
                )
        self._hint(f"ready on {answer.get('device', '')} · " + " · ".join(parts))

    def action_preview(self) -> None:
        self.toggle_class("-folded" if self.has_class("-wide") else "-unfolded")

    def action_paste(self) -> None:
        def pasted(text: str | None) -> None:
            if not text:
                return
            try:
                config = from_pasted(text)
            except EngineError as error:
                self.say(str(error), bad=True)
                return
            if config.preset in presets.PRESETS:
                self._preset = config.preset
                select: Select[str] = self.query_one("#pick-preset", Select)
                with select.prevent(Select.Changed):
                    select.value = config.preset
            self.query_one(ConfigForm).fill(config)

        self.app.push_screen(Paste(), pasted)

    def action_copy(self) -> None:
        if config := self._valid():
            command = self._command(config)
            self.app.copy_to_clipboard(command)
            file = rundir.home() / "command.txt"
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                rundir.write_whole(file, command.encode() + b"\n")
            except OSError as error:
                self.say(f"copied; cannot write {file}: {error.strerror}", bad=True)
            else:
                self.say(f"copied, and written to {file}")
