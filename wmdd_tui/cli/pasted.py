"""What a pasted text asks for: a command that starts a run, read as the shell's would be, or TOML."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any

import typer

from engine.config import STAGES, RunConfig, from_toml
from engine.errors import ConfigError
from wmdd_tui.cli import options, training
from wmdd_tui.cli.commands import app

#: A command as it is copied: perhaps after a prompt and variables, perhaps as ``python -m wmdd_tui``.
COMMAND = re.compile(r"\s*(?:\$\s+)?(?:\w+=\S*\s+)*(?:\S*python\S*\s+-m\s+wmdd_tui|\S*wmdd-tui)(?:\s+|$)")
STARTING = ("run", *STAGES)
EXAMPLE = "paste a command such as `wmdd-tui run --preset digits --set ipc=5`, or TOML"


@dataclass(frozen=True)
class Pasted:
    """A configuration, and whether the command would have put the run into its device's queue."""

    config: RunConfig
    queue: bool = False


def read_pasted(text: str) -> Pasted:
    """A ``wmdd-tui run`` command, one of a stage, or TOML. Raises ConfigError that says what cannot be read."""
    if not text.strip():
        raise ConfigError("nothing was pasted", EXAMPLE)
    found = COMMAND.match(text)
    if found is None:
        return Pasted(_toml(text))
    try:
        words = shlex.split(text[found.end() :].replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"the pasted command cannot be split into words: {error}", "check its quotes") from None
    if not words or words[0] not in STARTING:
        raise ConfigError(f"`wmdd-tui {' '.join(words[:1])}` starts no run that a form could hold", EXAMPLE)
    return _read(words[0], words[1:])


def _toml(text: str) -> RunConfig:
    try:
        return from_toml(text, "the pasted text")
    except ConfigError as error:
        raise ConfigError(error.message, error.remedy or EXAMPLE) from None


def _read(command: str, words: list[str]) -> Pasted:
    if {"-h", "--help"} & set(words):
        raise ConfigError(f"`wmdd-tui {command} --help` starts no run", EXAMPLE)
    group: Any = typer.main.get_command(app)
    try:
        given = group.commands[command].make_context(command, list(words)).params
    except Exception as error:  # the class of a wrong usage is not public in every version of Typer
        if not hasattr(error, "format_message"):
            raise
        raise ConfigError(f"the pasted command: {error.format_message()}", f"see `wmdd-tui {command} --help`") from None
    if command == "train":
        return Pasted(training.settings_of(**{key: given[key] for key in given if key not in ("detach", "as_json")}))
    until = [] if command == "run" else [f'run.until="{command}"']
    config = options.resolve(
        given["file"], given["preset"], [*(given["assignments"] or []), *until],
        given["name"], given["device"], given["seed"], given["ipc"],
    )  # fmt: skip
    return Pasted(config, bool(given.get("queue")))
