"""Studies: many runs that differ in a few settings, each row of them repeated over seeds.

A study is a base configuration and rows; a row is a label and assignments (``recover.r_bn=100``). Rows come from a
grid or from a TOML file:

    preset = "digits"                 # or: config = "mine.toml", beside this file
    set = ["recover.iterations=200"]  # for every row
    seeds = [0, 1, 2]
    group = "lambda"
    [[row]]
    label = "λ = 10"
    set = ["recover.r_bn=10"]

A trial is one row with one seed. The run that belongs to it is found by its configuration, so a study that was
broken off goes on where it stopped, and one that is extended runs only what is new.
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from engine import config, presets, rundir
from engine.devices import computes_in_bf16, resolve_here
from engine.errors import ConfigError, EngineError

MOST_TRIALS = 1000


class RowFile(msgspec.Struct, forbid_unknown_fields=True):
    """``[[row]]`` of a study file."""

    label: str
    set: list[str] = []
    preset: str = ""


class StudyFile(msgspec.Struct, forbid_unknown_fields=True):
    """A study file as it is written."""

    preset: str = ""
    config: str = ""
    set: list[str] = []
    seeds: list[int] = msgspec.field(default_factory=lambda: [0])
    group: str = ""
    row: list[RowFile] = []


@dataclass(frozen=True)
class Trial:
    """One row with one seed."""

    row: str
    seed: int
    settings: config.RunConfig


@dataclass(frozen=True)
class Found:
    """A trial and its run, if there is one; ``state`` is "missing" where there is none."""

    trial: Trial
    run: rundir.RunDir | None
    state: str


def rows_of_grid(grids: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Every combination of ``key=value,value`` texts as (label, assignments). Raises ConfigError."""
    axes: list[list[str]] = []
    for grid in grids:
        key, separator, values = grid.partition("=")
        found = [value.strip() for value in values.split(",") if value.strip()]
        if not separator or not found:
            raise ConfigError(f"--grid {grid!r} names no values", "write --grid section.key=value,value")
        axes.append([f"{key.strip()}={value}" for value in dict.fromkeys(found)])
    return [(", ".join(choice) or "base", list(choice)) for choice in itertools.product(*axes)]


def read_study(path: Path) -> StudyFile:
    """Read a study file. Raises ConfigError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), StudyFile)
    except FileNotFoundError:
        raise ConfigError(f"no study file {path}", "name an existing TOML file, or use --preset and --grid") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read study file {path}: {error}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path} is not a study: {error}", "docs/studies.md shows one") from None
    labels = [row.label for row in found.row]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: two rows have the label '{twice}'", "give each row a label of its own")
    return found


def base_of(found: StudyFile, folder: Path) -> config.RunConfig:
    """The configuration all rows start from. Raises ConfigError."""
    if bool(found.preset) == bool(found.config):
        raise ConfigError("a study needs either preset or config, and not both", "docs/studies.md shows one")
    start = presets.get(found.preset) if found.preset else config.load(folder / found.config)
    return config.override(start, found.set)


def trials_of_file(found: StudyFile, folder: Path, assignments: Sequence[str], group: str) -> list[Trial]:
    """All trials of a study file, the given assignments applied before each row's own. Raises ConfigError."""
    base = base_of(found, folder)
    rows = [(row.label, row.set, row.preset) for row in found.row] or [("base", [], "")]
    trials = []
    for label, own, preset in rows:
        start = config.override(presets.get(preset), found.set) if preset else base
        trials += trials_of(start, [(label, [*assignments, *own])], found.seeds, group or found.group)
    return bounded(trials)


def trials_of(
    base: config.RunConfig, rows: Sequence[tuple[str, list[str]]], seeds: Sequence[int], group: str
) -> list[Trial]:
    """Rows times seeds, seed by seed within a row. Raises ConfigError."""
    trials = []
    for label, assignments in rows:
        row = config.override(base, assignments)
        for seed in seeds:
            settings = config.from_dict(
                {**row.model_dump(mode="json"), "seed": seed, "group": group, "name": f"{label} s{seed}"[:80]}, label
            )
            trials.append(Trial(label, seed, settings))
    return bounded(trials)


def bounded(trials: list[Trial]) -> list[Trial]:
    """The trials, unless they are more than anyone can mean. Raises ConfigError."""
    if len(trials) > MOST_TRIALS:
        raise ConfigError(f"the study has {len(trials)} runs, at most {MOST_TRIALS} are allowed", "divide it")
    return trials


def _identity(settings: config.RunConfig) -> dict[str, Any]:
    """What makes two configurations the same work: all but names, and where and how it is computed."""
    values = settings.model_dump(mode="json", exclude={"name", "preset", "group", "run"})
    for section, option in config.SETTLED.items():  # a run's configuration holds what "auto" came to
        values.get(section, {}).pop(option, None)
    bf16 = computes_in_bf16(settings.run.precision, _kind_of(settings.run.device))
    return values | {"until": settings.run.until, "threads": settings.run.threads, "bf16": bf16}


@cache
def _kind_of(device: str) -> str:
    """Of a ``run.device`` here: "cpu" or "cuda"; asked once, for each of many runs wants it."""
    return "cpu" if resolve_here(device) == "cpu" else "cuda"


def find_runs(trials: Sequence[Trial], root: Path | None = None, since: float = 0.0) -> list[Found]:
    """The run of each trial: of several a finished one first, then a live one, then the newest.

    What is finished or under way belongs to a trial whatever it was begun for; what was broken off only if it was
    begun for the same study: another's may have failed for reasons of its own. Runs made before ``since`` (seconds of
    the epoch) are of files that have changed, and belong to no trial.
    """
    rank = {"finished": 0, **dict.fromkeys(rundir.ALIVE, 1)}
    known: list[tuple[dict[str, Any], rundir.RunDir, str, str]] = []
    for run in rundir.list_runs(root):
        try:
            if run.config_file.stat().st_mtime >= since:
                settings = run.config()
                known.append((_identity(settings), run, rundir.state_of(run), settings.group))
        except (EngineError, OSError):
            continue  # an unreadable run belongs to no trial; Runs shows it
    answers = []
    for trial in trials:
        wanted = _identity(trial.settings)
        same = [
            (run, state)
            for identity, run, state, group in known
            if identity == wanted and (state in rank or group == trial.settings.group)
        ]
        best = min(same, key=lambda pair: rank.get(pair[1], 2), default=None)
        answers.append(Found(trial, *best) if best else Found(trial, None, "missing"))
    return answers


def progress_of(found: Sequence[Found]) -> Mapping[str, int]:
    """How many trials are in each state."""
    states = [one.state for one in found]
    return {state: states.count(state) for state in dict.fromkeys(states)}
