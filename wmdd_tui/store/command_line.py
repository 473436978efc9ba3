"""A configuration as a shell command; ``wmdd_tui.cli.pasted`` is the way back. Torch-free."""

from __future__ import annotations

import json
import shlex
from typing import Any

from engine import presets
from engine.config import RunConfig, option_keys


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
