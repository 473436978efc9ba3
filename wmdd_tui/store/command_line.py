"""A configuration as a shell command, and the way back from a pasted command or TOML. Torch-free."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from typing import Any

from engine import presets
from engine.config import RunConfig, from_toml, option_keys, override
from engine.errors import ConfigError


def value_at(values: dict[str, Any], key: str) -> Any:
    """The value of a dotted key."""
    for part in key.split("."):
        values = values[part]
    return values


def differences(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """Dotted keys whose values differ from the base's, apart from the preset's name."""
    ours, theirs = config.model_dump(mode="json"), base.model_dump(mode="json")
    keys = [key for key in option_keys() if key != "preset"]
    return {key: value_at(ours, key) for key in keys if value_at(ours, key) != value_at(theirs, key)}


def command_for(config: RunConfig, preset: str) -> str:
    """The shell command that starts the same run."""
    words = ["wmdd-tui", "run", "--preset", preset]
    for key, value in differences(config, presets.get(preset)).items():
        words += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(words)


def from_pasted(text: str) -> RunConfig:
    """A configuration from TOML or from a ``wmdd-tui run`` command. Raises ConfigError."""
    if "wmdd-tui" not in text.split("\n", 1)[0]:
        return from_toml(text, "the pasted text")
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"the pasted command cannot be read: {error}", "check its quotes") from None
    preset, assignments = "digits", []
    short = {"--name": "name", "--device": "run.device", "--seed": "seed", "--ipc": "ipc"}
    for flag, value in pairwise(words):
        if flag == "--preset":
            preset = value
        elif flag == "--set":
            assignments.append(value)
        elif flag in short:
            quoted = value if short[flag] in ("seed", "ipc") else json.dumps(value, ensure_ascii=False)
            assignments.append(f"{short[flag]}={quoted}")
    return override(presets.get(preset), assignments)
