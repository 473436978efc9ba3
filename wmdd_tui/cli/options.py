"""Options shared by the commands that start a run, and how they become one configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine import config, presets, rundir
from engine.distributed.supervising import Nodes, checked_nodes
from engine.errors import ConfigError, RunDirError
from wmdd_tui.cli.opening import Ascii as Ascii
from wmdd_tui.cli.opening import Preset as Preset
from wmdd_tui.cli.opening import Readonly as Readonly
from wmdd_tui.cli.opening import RunName as RunName
from wmdd_tui.cli.opening import SlowLink as SlowLink
from wmdd_tui.cli.opening import Theme as Theme

#: How the engine begins the message about values that are wrong together or by themselves.
SET_SOURCE = "--set:"


class ResumeChoice(StrEnum):
    """Whether ``run`` may continue an earlier run."""

    AUTO = "auto"
    NEVER = "never"


ConfigFile = Annotated[Path | None, typer.Argument(help="A TOML file; see `wmdd-tui config show`.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Override an option: --set recover.r_bn=100. Repeatable.")
]
Name = Annotated[str | None, typer.Option(help="A name to recognise the run by.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Devices = Annotated[
    str | None,
    typer.Option(help="Several devices, a process on each: 0,1,2,3, all, or cpu,cpu. MIG instances by their names."),
]
NodeCount = Annotated[int, typer.Option("--nnodes", min=1, help="Hosts that take part; start this on each of them.")]
RdzvEndpoint = Annotated[
    str, typer.Option("--rdzv-endpoint", metavar="HOST:PORT", help="Where hosts meet: the first one, a free port.")
]
NodeRank = Annotated[int, typer.Option("--node-rank", min=0, help="Which of the hosts this is; 0 is the first.")]
Seed = Annotated[int | None, typer.Option(help="Seed of every random choice.")]
Ipc = Annotated[int | None, typer.Option(help="Synthetic images per class.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once; watch with `wmdd-tui watch`.")]
Queue = Annotated[bool, typer.Option("--queue", help="Wait until the device is free, behind what waits already.")]
Resume = Annotated[
    ResumeChoice | None,
    typer.Option(
        help="auto continues the newest run of exactly this configuration unless it is finished; never makes a new "
        "one. In a job that Slurm has requeued auto is meant, else never."
    ),
]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="The real images: folders, Parquet or CIFAR.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


def resolve(
    file: Path | None,
    preset: str,
    assignments: list[str] | None,
    name: str | None = None,
    device: str | None = None,
    seed: int | None = None,
    ipc: int | None = None,
    base: config.RunConfig | None = None,
    devices: str | None = None,
) -> config.RunConfig:
    """The configuration a command line asks for; ``base`` where it names none. Raises ConfigError."""
    if file is not None and preset:
        raise ConfigError("both a configuration file and --preset are given", "use one, and --set for the rest")
    if base is None:
        base = config.load(file) if file is not None else presets.get(preset or "digits")
    extra = {"name": name, "run.device": device, "run.devices": devices, "seed": seed, "ipc": ipc}
    # JSON strings are TOML strings, so a name may hold anything.
    given = {
        f"--{key.removeprefix('run.')}": f"{key}={_toml(value)}" for key, value in extra.items() if value is not None
    }
    try:
        return _teacher_by_id(config.override(base, [*(assignments or []), *given.values()]))
    except ConfigError as error:
        sources = {**{flag: [text] for flag, text in given.items()}, **({"--set": assignments} if assignments else {})}
        for flag, texts in sources.items():
            _check_alone(base, flag, texts)
        raise _told_of(list(sources), error) from None


def _check_alone(base: config.RunConfig, flag: str, assignments: Sequence[str]) -> None:
    """Raise ConfigError that names one option of the command line if what it says is wrong without the others."""
    try:
        config.override(base, assignments)
    except ConfigError as error:
        raise _told_of([flag], error) from None


def _teacher_by_id(settings: config.RunConfig) -> config.RunConfig:
    """The configuration with the id of the teacher's run, where a name from the list of runs stands for it.

    The new run may be listed under the same name, so that the engine could not tell the two.
    """
    teacher = settings.teacher
    if teacher.source != "run" or Path(teacher.path).expanduser().is_dir():
        return settings
    try:
        found = rundir.find(teacher.path)
    except RunDirError:
        return settings  # the engine says so, and what to do
    if teacher.path in found.id:
        return settings
    return settings.model_copy(update={"teacher": teacher.model_copy(update={"path": found.id})})


def _told_of(flags: Sequence[str], error: ConfigError) -> ConfigError:
    """An error of several values, told of the options that gave them rather than of --set."""
    what = error.message.removeprefix(SET_SOURCE)
    return error if what == error.message else ConfigError(f"{', '.join(flags)}:{what}", error.remedy)


def nodes(count: int, rdzv_endpoint: str, node_rank: int, queue: bool) -> Nodes:
    """The hosts a command line names. Raises ConfigError."""
    found = checked_nodes(str(count), rdzv_endpoint, str(node_rank))
    if found.count > 1 and queue:
        raise ConfigError("--queue is for the devices of one host", "leave it out with --nnodes")
    return found


def may_resume(choice: ResumeChoice | None) -> bool:
    """What was chosen, or what the job scheduler says of this attempt."""
    if choice is not None:
        return choice is ResumeChoice.AUTO
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def _toml(value: str | int) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
