"""The form of a new run, and beside it what the run amounts to."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Label, Select, Static

from engine import presets, queueing, rundir
from engine.catalog import DatasetFacts
from engine.config import RunConfig, to_toml
from engine.errors import EngineError
from wmdd_tui.cli.pasted import Pasted
from wmdd_tui.screens.base import ActionScreen, bindings
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.paste import Paste
from wmdd_tui.store.command_line import command_for
from wmdd_tui.store.datasets import data_root, known_datasets
from wmdd_tui.store.devices import Device, list_devices
from wmdd_tui.store.estimate import Estimate, estimate_here
from wmdd_tui.store.launch import check
from wmdd_tui.store.teachers import Teacher, earlier_teachers
from wmdd_tui.widgets.config_form import ConfigForm, Draft
from wmdd_tui.widgets.form_texts import dataset_text, device_text, problem_text
from wmdd_tui.widgets.key_bar import KeyBar
from wmdd_tui.widgets.plan import PlanView, StageTable, grave

NO_CHOICE = "another: see the fields below"
NOW, QUEUE = "now", "queue"
PICKER_HELP = {
    "preset": "Published and tried settings. Choosing one starts the form over.",
    "teacher": "The network that is matched: trained here, torchvision's weights, a checkpoint, an earlier run's.",
    "device": "Where the run computes, with the memory that is free there now.",
    "start": "At once, or when what runs and waits on that device has ended; it waits without this dashboard.",
}
ESTIMATE_SECONDS = 0.15
#: Launching waits no longer for an estimate that is not there yet: a large data set may take long to be counted.
PATIENCE_SECONDS = 2.0


@dataclass
class Found(Message):
    """Data sets of this machine, teachers of earlier runs that may be used again, and this machine's devices.

    ``busy`` counts by queue what runs and waits there.
    """

    datasets: list[DatasetFacts]
    teachers: list[Teacher]
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
        self._fresh = preset is None and config is None
        self._draft: Draft | None = None
        self._preset = preset if preset in presets.PRESETS else "digits"
        if config is not None and config.preset in presets.PRESETS:
            self._preset = config.preset
        self._given = config or presets.get(self._preset)
        self._config: RunConfig | None = self._given
        self._estimated: tuple[RunConfig, Estimate] | None = None
        self._datasets: dict[str, DatasetFacts] = {}
        self._teachers: dict[str, Teacher] = {}
        self._pickers: dict[str, set[str]] = {}

    def compose(self) -> ComposeResult:
        self._draft = self.cockpit.draft if self._fresh else None
        if self._draft is not None and self._draft.base["preset"] in presets.PRESETS:
            # Before the picker is there: changed afterwards, it would announce its first choice too.
            self._preset = str(self._draft.base["preset"])
        with Vertical(id="pickers"):
            named = [(Text(f"{name}: {presets.describe(name)}"), name) for name in presets.PRESETS]
            yield self._picker("preset", named, self._preset)
            for name in ("dataset", "teacher", "device"):
                yield self._picker(name, [(Text(NO_CHOICE), "")], "")
            starts = [(Text("at once"), NOW), (Text("behind what runs on that device"), QUEUE)]
            yield self._picker("start", starts, NOW)
        with Horizontal(id="body"):
            yield ConfigForm(self._given, id="form")
            with VerticalScroll(id="preview"):
                yield StageTable(id="stages")
                yield Static("", id="toml", markup=False)
        yield Static("", id="hint", markup=False)
        yield Static("", id="problem", markup=False)
        yield PlanView(id="plan")
        yield Static("", id="command", markup=False)
        yield KeyBar()

    def _picker(self, name: str, pairs: list[tuple[Text, str]], value: str) -> Horizontal:
        select = Select(pairs, value=value, allow_blank=False, id=f"pick-{name}", compact=True)
        return Horizontal(Label(name), select)

    def on_mount(self) -> None:
        self.query_one("#field-name").focus()
        form = self.query_one(ConfigForm)
        if self._draft is not None:
            form.restore(self._draft)
            self.say("what you typed before is here again; choosing a preset starts over")
        else:
            form.validate_all()
        self._find()

    def step_back(self) -> bool:
        """Leaving keeps what was typed for the next time."""
        self.cockpit.draft = self.query_one(ConfigForm).draft
        return False

    def _take_preset(self, name: str) -> None:
        """Let the picker show the preset a configuration began with."""
        if name in presets.PRESETS:
            self._preset = name
            self._put("preset", name)

    @work(thread=True, exclusive=True, group="find", exit_on_error=False)
    def _find(self) -> None:
        teachers = earlier_teachers()
        datasets = known_datasets([teacher.config for teacher in teachers])
        busy = Counter(place.device for place in queueing.places())
        self.post_message(Found(datasets, teachers, list_devices(), busy))

    @on(Found)
    def _offer(self, message: Found) -> None:
        self._datasets = {facts.path: facts for facts in message.datasets}
        self._teachers = {teacher.path: teacher for teacher in message.teachers}
        rows = [(NO_CHOICE, ""), ("digits (built in): 10 classes, 1438 + 359 images, 8×8 px", "digits")]
        self._set_options("dataset", [*rows, *[(dataset_text(facts), facts.path) for facts in message.datasets]])
        rows = [
            (NO_CHOICE, ""), ("train it here", "train"), ("torchvision weights", "torchvision"),
            ("a checkpoint file: name it in teacher.path", "checkpoint"),
        ]  # fmt: skip
        self._set_options("teacher", [*rows, *[(teacher.text, teacher.path) for teacher in message.teachers]])
        rows = [(NO_CHOICE, ""), ("auto: the first GPU, else the CPU", "auto")]
        self._set_options("device", [*rows, *[(device_text(one, message.busy), one.name) for one in message.devices]])
        self._reflect()
        if self._config is not None:
            self._estimate(self._config)

    def _set_options(self, name: str, rows: list[tuple[str, str]]) -> None:
        select: Select[str] = self.query_one(f"#pick-{name}", Select)
        self._pickers[name] = {value for _, value in rows}
        with select.prevent(Select.Changed):
            select.set_options([(Text(text), value) for text, value in rows])

    def _reflect(self) -> None:
        """Let the pickers say what the fields say, whoever filled them."""
        values = self.query_one(ConfigForm).values()
        data, teacher = values["data"], values["teacher"]
        chosen = {
            "dataset": "digits" if data["dataset"] == "digits" else data["path"],
            "teacher": teacher["path"] if teacher["source"] == "run" else teacher["source"],
            "device": values["run"]["device"],
        }
        for name, value in chosen.items():
            self._put(name, value if value in self._pickers.get(name, ()) else "")

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
        elif choice in self._teachers:
            form.put({"teacher.source": "run", "teacher.path": choice, **self._teachers[choice].options})

    @on(Select.Changed, "#pick-device")
    def _device_chosen(self, event: Select.Changed) -> None:
        if event.value:
            self.query_one(ConfigForm).put({"run.device": str(event.value)})

    @on(Select.Changed, "#pick-start")
    def _start_chosen(self) -> None:
        if self._config is not None:
            self._show_plan(self._config)

    def _put(self, name: str, value: str) -> None:
        """Show a choice that was not made by hand."""
        select: Select[str] = self.query_one(f"#pick-{name}", Select)
        with select.prevent(Select.Changed):
            select.value = value

    def _queued(self) -> bool:
        return bool(self.query_one("#pick-start", Select).value == QUEUE)

    # --- preview -------------------------------------------------------------------------------------------

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        name = (event.widget.id or "").removeprefix("pick-")
        if name == "dataset":
            root = data_root()
            told = f"what lies under {root} ($WMDD_DATA)" if root else "what lies under $WMDD_DATA, which is not set"
            self._hint(f"The built-in digits, {told}, and the sets of earlier runs.")
        elif name in PICKER_HELP:
            self._hint(PICKER_HELP[name])

    @on(ConfigForm.Explained)
    def _explain(self, message: ConfigForm.Explained) -> None:
        self._hint(message.text)

    def _hint(self, text: str) -> None:
        self.query_one("#hint", Static).update(text)

    @on(ConfigForm.Changed)
    def _changed(self, message: ConfigForm.Changed) -> None:
        self._config = message.config
        problem = self.query_one("#problem", Static)
        problem.set_class(bool(message.errors), "-shown")
        problem.update(problem_text(message.errors))
        self.set_class(message.config is None, "-invalid")
        self._reflect()
        if message.config is not None:
            self._show_plan(message.config)
        else:
            self.query_one("#command", Static).update("no command while a field is wrong")

    def _show_plan(self, config: RunConfig) -> None:
        self._estimate(config)
        self.query_one("#command", Static).update("$ " + self._command(config))
        self.query_one("#toml", Static).update(to_toml(config))

    @work(exclusive=True, group="estimate", exit_on_error=False)
    async def _estimate(self, config: RunConfig) -> None:
        """Show what the run amounts to, once no key has followed for a moment; it is worked out in a thread."""
        await asyncio.sleep(ESTIMATE_SECONDS)
        try:
            found = await self._found_for(config)
        except OSError as error:
            self.query_one(PlanView).fail(str(error))
            return
        # The form may have been left meanwhile; then there is nothing to show it in.
        for view in (*self.query(PlanView), *self.query(StageTable)):
            view.show(found)

    async def _found_for(self, config: RunConfig) -> Estimate:
        """The estimate of a configuration, kept until the next one. Raises OSError."""
        facts = self._datasets.get(config.data.path)
        found = await asyncio.to_thread(lambda: estimate_here(config, list_devices(), facts))
        self._estimated = config, found
        return found

    # --- actions -------------------------------------------------------------------------------------------

    async def _valid(self) -> RunConfig | None:
        """The configuration, or None and the cursor in the field that is wrong."""
        if self._config is None:
            wrong = self.query_one("#problem", Static)
            self.say(f"not yet: {wrong.content}", bad=True)
            await self.query_one(ConfigForm).focus_wrong()
        return self._config

    def _command(self, config: RunConfig) -> str:
        return command_for(config, self._preset) + (" --queue" if self._queued() else "")

    async def action_launch(self) -> None:
        """Start, after a question where the run would hardly reach its end."""
        config = await self._valid()
        if config is None:
            return
        warnings = await self._grave(config)
        if not warnings:
            self._start(config)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._start(config)

        self.app.push_screen(Confirm("\n\n".join([*warnings, "Launch it all the same?"]), "Launch"), answered)

    async def _grave(self, config: RunConfig) -> list[str]:
        """What speaks against a launch, as far as it can be known soon."""
        if self._estimated is None or self._estimated[0] != config:
            try:
                await asyncio.wait_for(self._found_for(config), PATIENCE_SECONDS)
            except (OSError, TimeoutError):
                return []
        return grave(self._estimated[1]) if self._estimated else []

    def _start(self, config: RunConfig) -> None:
        try:
            run = self.cockpit.start(config, queue=self._queued())
        except EngineError as error:
            self.say(str(error), bad=True)
            return
        self.cockpit.draft = None
        self.app.switch_screen(MonitorScreen(run))

    async def action_check(self) -> None:
        if config := await self._valid():
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
        parts += [f"! {warning}" for warning in answer.get("warnings", [])]
        self._hint(f"ready on {answer.get('device', '')} · " + " · ".join(parts))

    def action_preview(self) -> None:
        """Beside the form where there is room, else in its place."""
        if not self.has_class("-narrow"):
            self.toggle_class("-folded")
            return
        self.toggle_class("-unfolded")
        shown = "#preview" if self.has_class("-unfolded") else "#field-name"
        self.query_one(shown).focus()

    def action_paste(self) -> None:
        def pasted(found: Pasted | None) -> None:
            if found is None:
                return
            self._take_preset(found.config.preset)
            self._put("start", QUEUE if found.queue else NOW)
            self.query_one(ConfigForm).fill(found.config)

        self.app.push_screen(Paste(), pasted)

    async def action_copy(self) -> None:
        """The command goes to the clipboard, and with the TOML to files, for a clipboard is not everywhere."""
        config = await self._valid()
        if config is None:
            return
        command = self._command(config)
        self.app.copy_to_clipboard(command)
        folder = rundir.home() / "exports"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            rundir.write_whole(folder / "command.txt", command.encode() + b"\n")
            rundir.write_whole(folder / "config.toml", to_toml(config).encode())
        except OSError as error:
            self.say(f"copied; cannot write to {folder}: {error.strerror}", bad=True)
        else:
            self.say(f"copied; {folder} holds it as command.txt, and the TOML as config.toml")
