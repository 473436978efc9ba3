"""Keys of one's own: ``$XDG_CONFIG_HOME/wmdd-tui/keys.toml`` gives actions of the action table other keys.

    "runs.open" = "o"
    "monitor.zoom_in" = "plus,z"

Every fault of the file ends in one ConfigError that names the entry and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from engine.errors import ConfigError
from wmdd_tui.actions import ACTIONS, Action

_KEY = re.compile(r"^((ctrl|shift|alt)\+)*([A-Za-z0-9]|f([1-9]|1[0-2])|[a-z]{2,}(_[a-z]+)*)$")
HOW = "see docs/keys.md for the names of actions and keys"


def keymap_file() -> Path:
    """Where the user's keys stand."""
    root = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(root).expanduser() if root else Path.home() / ".config") / "wmdd-tui" / "keys.toml"


def load_keymap(file: Path) -> dict[str, str]:
    """Action name → keys; empty without a file. Raises ConfigError."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the keys in {file}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}", 'write lines such as "runs.open" = "o"') from None
    return checked(_flat(values), str(file))


def _flat(values: Mapping[str, object]) -> dict[str, object]:
    """``[runs] open = "o"`` says the same as ``"runs.open" = "o"``."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": key for inner, key in value.items()}
        else:
            found[name] = value
    return found


def checked(wanted: Mapping[str, object], source: str) -> dict[str, str]:
    """The keys, with spaces removed. Raises ConfigError: unknown action, no key, or a key with two actions."""
    names = [action.name for action in ACTIONS]
    found: dict[str, str] = {}
    for name, value in wanted.items():
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{source}: there is no action '{name}'{hint}", HOW)
        keys = [key.strip() for key in value.split(",")] if isinstance(value, str) else []
        wrong = [key for key in keys if not _KEY.match(key)]
        if wrong or not keys:
            shown = wrong[0] if wrong else value
            raise ConfigError(f"{source}: {name} = {shown!r} is no key; allowed are a, ctrl+a, f5, plus, space …", HOW)
        found[name] = ",".join(keys)
    _refuse_duplicates(found, source)
    return found


def _refuse_duplicates(keymap: Mapping[str, str], source: str) -> None:
    """On no screen may one key mean two things; the keys of "Everywhere" count on each."""
    for scope in ("runs", "new", "monitor", "compare"):
        owner: dict[str, str] = {}
        for action in ACTIONS:
            if action.scope not in (scope, "app"):
                continue
            for key in keys_of(action, keymap).split(","):
                if key in owner and (action.name in keymap or owner[key] in keymap):
                    raise ConfigError(
                        f"{source}: key '{key}' would mean both {owner[key]} and {action.name}",
                        "give one of them another key",
                    )
                owner[key] = action.name


def keys_of(action: Action, keymap: Mapping[str, str]) -> str:
    """The keys of an action, the user's where there are any."""
    return keymap.get(action.name, action.key)
