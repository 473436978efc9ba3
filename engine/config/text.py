"""Configurations as people write them: TOML files, ``--set section.key=value``, and the table of all options.

What is wrong is said in one line a key: which key, which value, what is allowed, and the nearest known name.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from engine.config.models import RunConfig
from engine.errors import ConfigError


def from_dict(values: Mapping[str, Any], source: str = "configuration") -> RunConfig:
    """Validate plain values. Raises ConfigError that names each wrong key, its value and what is allowed."""
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join([f"{source}:"] + [f"  {_explain(item)}" for item in error.errors()])) from None


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggest(key, option_keys())}"
    message: str = item["msg"].removeprefix("Value error, ")
    if not key or item["type"] == "value_error":
        return message
    return f"{key} = {item['input']!r}: {message}"


def _suggest(wrong: str, known: Sequence[str]) -> str:
    leaf = wrong.rsplit(".", 1)[-1]
    alike = [key for key in known if key.rsplit(".", 1)[-1] == leaf]
    near = difflib.get_close_matches(wrong, alike or known, n=1, cutoff=0.5) or alike[:1]
    return f"; did you mean '{near[0]}'?" if near else "; `wmdd-tui config schema` lists the keys"


def option_keys() -> list[str]:
    """Dotted names of all options, in the order of the models."""
    keys: list[str] = []
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += [f"{name}.{inner}" for inner in field.annotation.model_fields]
        else:
            keys.append(name)
    return keys


def describe() -> list[tuple[str, str, str]]:
    """Every option: its key, default (as TOML) and help with unit and choices."""
    rows = []
    for key in option_keys():
        *sections, leaf = key.split(".")
        model: type[BaseModel] = RunConfig
        for section in sections:
            annotation = model.model_fields[section].annotation
            assert isinstance(annotation, type)
            model = annotation
        field = model.model_fields[leaf]
        choices = choices_of(field)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        unit = f" [{extra['unit']}]" if "unit" in extra else ""
        text = f"{field.description}{unit}" + (f" One of: {', '.join(choices)}." if choices else "")
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        rows.append((key, tomli_w.dumps({leaf: default}).split("=", 1)[1].strip(), text))
    return rows


def choices_of(field: FieldInfo) -> list[str]:
    """The words an option may be, none where it may be anything of its type."""
    return [str(choice) for choice in get_args(field.annotation)] if get_origin(field.annotation) is Literal else []


def from_toml(text: str, source: str = "configuration") -> RunConfig:
    """Parse TOML text. Raises ConfigError."""
    try:
        return from_dict(tomllib.loads(text), source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from None


def load(path: Path) -> RunConfig:
    """Read a TOML file. Raises ConfigError."""
    return from_toml(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}", "name an existing TOML file, or use --preset") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read configuration file {path}: {error}") from None


def to_toml(config: RunConfig) -> str:
    """The complete configuration as TOML, every option written out."""
    return tomli_w.dumps(config.model_dump(mode="json"))


def override(config: RunConfig, assignments: Sequence[str]) -> RunConfig:
    """Apply ``section.key=value`` texts. Values are TOML literals; a bare word is a string. Raises ConfigError."""
    values = config.model_dump(mode="json")
    known = option_keys()
    for assignment in assignments:
        key, separator, raw = assignment.partition("=")
        key = key.strip()
        if not separator:
            raise ConfigError(f"--set {assignment!r} has no '='", "write --set section.key=value")
        if key not in known:
            raise ConfigError(f"--set {key}: unknown key{_suggest(key, known)}")
        target = values
        *sections, leaf = key.split(".")
        for section in sections:
            target = target[section]
        target[leaf] = _literal(raw.strip())
    return from_dict(values, "--set")


def _literal(raw: str) -> Any:
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        return raw
