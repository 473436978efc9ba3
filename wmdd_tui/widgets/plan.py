"""What a configuration amounts to: the equivalent command, the numbers of chunks and images, the disk it needs.

Pure functions, torch-free; the way back, from a pasted command or TOML to a configuration, is here too.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine import presets
from engine.config import RunConfig, from_toml, option_keys, override
from engine.errors import ConfigError

PNG_SHARE = 0.9
HALF_BYTES = 2
KNOWN_CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100}


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


@dataclass(frozen=True)
class Plan:
    """Counts of a run; ``classes`` is 0 where the dataset has not been counted. ``disk`` and ``free`` in bytes."""

    classes: int
    images: int
    chunks: int
    iterations: int
    disk: int
    free: int


def plan_of(config: RunConfig, classes: int, home: Path) -> Plan:
    """The counts; a class larger than a chunk forms a chunk of its own."""
    batch, ipc = config.recover.batch_size, config.ipc
    if config.recover.chunk == "per-class":
        chunks = math.ceil(classes / max(1, batch // ipc))
    else:
        chunks = math.ceil(classes / batch) * ipc
    images = classes * ipc
    disk = int(images * config.data.resolution**2 * 3 * PNG_SHARE)
    if config.relabel.storage == "stored":
        disk += config.train.epochs * images * classes * HALF_BYTES
    while not home.exists() and home != home.parent:
        home = home.parent
    return Plan(classes, images, chunks, chunks * config.recover.iterations, disk, shutil.disk_usage(home).free)
