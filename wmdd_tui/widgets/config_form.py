"""A form generated from the configuration's model: a new option appears here without a line of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Checkbox, Collapsible, Input, Label, Select, Static

from engine.catalog import ARCHITECTURES, TRANSFORMERS
from engine.config import RunConfig, from_dict, option_keys
from engine.config.text import choices_of
from engine.errors import ConfigError
from wmdd_tui.store.command_line import value_at

HIDDEN = frozenset({"preset"})
ALSO_BASIC = frozenset({"teacher.path"})


@dataclass(frozen=True)
class Option:
    """One option of the model as the form shows it."""

    key: str
    kind: type
    choices: tuple[str, ...]
    basic: bool
    help: str

    @property
    def field_id(self) -> str:
        return "field-" + self.key.replace(".", "-")

    @property
    def row_id(self) -> str:
        return "row-" + self.key.replace(".", "-")


def options() -> list[Option]:
    """All options, in the order of the models."""
    return [_option(key) for key in option_keys() if key not in HIDDEN]


def _option(key: str) -> Option:
    *sections, leaf = key.split(".")
    model: type[BaseModel] = RunConfig
    for section in sections:
        annotation = model.model_fields[section].annotation
        assert isinstance(annotation, type)
        model = annotation
    field = model.model_fields[leaf]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    choices = tuple(choices_of(field))
    of = type(get_args(field.annotation)[0]) if choices else field.annotation
    kind = of if isinstance(of, type) else str
    unit = f" [{extra['unit']}]" if "unit" in extra else ""
    # An option of no section has no fold it could stand in.
    basic = extra.get("level") == "basic" or key in ALSO_BASIC or not sections
    return Option(key, kind, choices, basic, f"{field.description or ''}{unit}{_bounds(field)}")


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(item, name):g}"
        for item in field.metadata
        for name, sign in signs.items()
        if isinstance(getattr(item, name, None), int | float)
    ]
    return f" ({', '.join(found)})" if found else ""


def parse(option: Option, raw: Any) -> Any:
    """The typed value of what was typed; text that is no number stays text, for validation to refuse."""
    if option.kind in (int, float) and isinstance(raw, str):
        try:
            return option.kind(raw.strip())
        except ValueError:
            return raw
    return raw


def errors_by_key(error: ConfigError) -> dict[str, str]:
    """Each line of a configuration error under the option it speaks of; "" holds what fits none."""
    known = sorted(option_keys(), key=len, reverse=True)
    found: dict[str, str] = {}
    for line in error.message.splitlines()[1:]:
        text = line.strip()
        mentioned = [key for key in known if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.])", text)]
        first = min(mentioned, key=text.index, default="")
        found.setdefault(first, text)
    return found


class FieldRow(Vertical):
    """Label and control of one option, and under them what is wrong with its value."""

    def __init__(self, option: Option, value: Any) -> None:
        super().__init__(id=option.row_id, classes="row")
        self.option = option
        self._value = value

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(self.option.key, markup=False)
            yield self._control()
        yield Static("", classes="error", markup=False)

    def _control(self) -> Widget:
        option, value = self.option, self._value
        if option.choices:
            pairs = [(choice, choice) for choice in option.choices]
            return Select(pairs, value=str(value), allow_blank=False, id=option.field_id, compact=True)
        if option.kind is bool:
            return Checkbox("", value=bool(value), id=option.field_id, compact=True)
        students = (*ARCHITECTURES, *TRANSFORMERS) if option.key == "train.arch" else ARCHITECTURES
        names = SuggestFromList(students) if option.key.endswith(".arch") else None
        return Input(_text(value), id=option.field_id, compact=True, suggester=names, select_on_focus=False)

    def put(self, value: Any) -> None:
        """Show a value."""
        self._value = value
        control = self.query_one("#" + self.option.field_id)
        if isinstance(control, Select):
            control.value = str(value)
        elif isinstance(control, Checkbox):
            control.value = value
        elif isinstance(control, Input):
            control.value = _text(value)

    def complain(self, message: str) -> None:
        """Show an error under the field; an empty one hides it."""
        self.set_class(bool(message), "-wrong")
        self.query_one(".error", Static).update(message)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


@dataclass(frozen=True)
class Draft:
    """A form that was left: the values it began with, and those that were typed, which need not be valid."""

    base: dict[str, Any]
    edits: dict[str, Any]


class ConfigForm(VerticalScroll, can_focus=False):
    """Basic options first, the others by section, each section folded until it is opened."""

    @dataclass
    class Changed(Message):
        """The values changed; ``config`` is None while they are not valid.

        ``errors`` says what is wrong, by option; under "" stands what fits none.
        """

        config: RunConfig | None
        errors: dict[str, str]

    @dataclass
    class Explained(Message):
        """Another field has the focus."""

        text: str

    def __init__(self, config: RunConfig, id: str) -> None:
        super().__init__(id=id)
        self._base = config.model_dump(mode="json")
        self._edits: dict[str, Any] = {}
        self._options = {option.key: option for option in options()}
        self._errors: dict[str, str] = {}

    def compose(self) -> ComposeResult:
        for option in self._options.values():
            if option.basic:
                yield FieldRow(option, self._value(option.key))
        for section in self._sections():
            yield Collapsible(title=f"{section}: more options", id=f"section-{section}", collapsed=True)

    def _sections(self) -> Iterator[str]:
        seen = {key.split(".")[0] for key, option in self._options.items() if not option.basic}
        yield from (name for name in RunConfig.model_fields if name in seen)

    @on(Collapsible.Expanded)
    async def _open_section(self, event: Collapsible.Expanded) -> None:
        """Advanced rows are made when first looked at: eighty rows at once would delay the first paint."""
        await self._make_rows(event.collapsible)

    async def _make_rows(self, fold: Collapsible) -> None:
        contents = fold.query_one(Collapsible.Contents)
        section = (fold.id or "").removeprefix("section-")
        if not contents.query(FieldRow):
            wanted = [o for key, o in self._options.items() if not o.basic and key.startswith(section + ".")]
            await contents.mount_all(FieldRow(option, self._value(option.key)) for option in wanted)
            self._show_errors()

    def _value(self, key: str) -> Any:
        return self._edits[key] if key in self._edits else value_at(self._base, key)

    def values(self) -> dict[str, Any]:
        """Nested plain values as they stand."""
        result: dict[str, Any] = {}
        for key in option_keys():
            *sections, leaf = key.split(".")
            target = result
            for section in sections:
                target = target.setdefault(section, {})
            target[leaf] = self._value(key)
        return result

    @property
    def draft(self) -> Draft | None:
        """What was typed and on top of what; None where nothing was."""
        return Draft(dict(self._base), dict(self._edits)) if self._edits else None

    def restore(self, draft: Draft) -> None:
        """Go on with what was typed before."""
        self._base, self._edits = dict(draft.base), dict(draft.edits)
        for row in self.query(FieldRow):
            row.put(self._value(row.option.key))
        self.validate_all()

    def fill(self, config: RunConfig) -> None:
        """Start over from a configuration."""
        self.restore(Draft(config.model_dump(mode="json"), {}))

    def put(self, changes: dict[str, Any]) -> None:
        """Set some options, as the pickers do."""
        self._edits |= changes
        for row in self.query(FieldRow):
            if row.option.key in changes:
                row.put(changes[row.option.key])
        self.validate_all()

    @on(Input.Changed)
    @on(Select.Changed)
    @on(Checkbox.Changed)
    def _edited(self, event: Input.Changed | Select.Changed | Checkbox.Changed) -> None:
        event.stop()
        row = next((node for node in event.control.ancestors if isinstance(node, FieldRow)), None)
        if row is None:
            return
        key, value = row.option.key, parse(row.option, event.value)
        if value != self._value(key):
            self._edits[key] = value
            self.validate_all()

    def validate_all(self) -> None:
        """Check all values and say so."""
        config = None
        self._errors = {}
        try:
            config = from_dict(self.values())
        except ConfigError as problem:
            self._errors = errors_by_key(problem) or {"": problem.message}
        self._show_errors()
        self.post_message(self.Changed(config, self._errors))

    async def focus_wrong(self) -> None:
        """Go to the first option that is wrong, out of its fold if need be."""
        key = next((key for key in self._options if key in self._errors), None)
        if key is None:
            return
        if not self._options[key].basic:
            fold = self.query_one(f"#section-{key.split('.')[0]}", Collapsible)
            await self._make_rows(fold)
            fold.collapsed = False
        self.query_one("#" + self._options[key].field_id).focus()

    def _show_errors(self) -> None:
        for row in self.query(FieldRow):
            row.complain(self._errors.get(row.option.key, ""))
        self.call_after_refresh(self._keep_in_view)

    def on_resize(self) -> None:
        self.call_after_refresh(self._keep_in_view)

    def _keep_in_view(self) -> None:
        """Scroll to the field that has the focus, with what is said under it, should less room have hidden it."""
        focused = self.screen.focused
        if focused is None:
            return
        for row in focused.ancestors:
            if isinstance(row, FieldRow):
                self.scroll_to_widget(row, animate=False, immediate=True)
                # The field comes first where there is no room for both.
                self.scroll_to_widget(focused, animate=False, immediate=True)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        row = next((node for node in event.widget.ancestors if isinstance(node, FieldRow)), None)
        if row is not None:
            self.post_message(self.Explained(row.option.help))
