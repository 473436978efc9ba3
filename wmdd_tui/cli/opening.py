"""The commands that open the dashboard. They need none of what the others do, so it is not imported for them."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Annotated, Any, NoReturn

import typer

from engine import rundir
from engine.errors import ConfigError
from wmdd_tui.store import ahead

SETTINGS = {"help_option_names": ["-h", "--help"]}

RunName = Annotated[str, typer.Argument(help="Run id, unique prefix, name or path; the newest when left out.")]
Attached = Annotated[
    str,
    typer.Argument(
        help="Run id, unique prefix, name or path; when left out the newest that is alive, or else the newest."
    ),
]
Preset = Annotated[str, typer.Option(help="Start from a preset; `wmdd-tui presets` lists them.")]
Ascii = Annotated[bool, typer.Option("--ascii", help="Draw with ASCII characters alone.")]
Readonly = Annotated[bool, typer.Option("--readonly", help="Disable everything that changes a run.")]
SlowLink = Annotated[bool, typer.Option("--slow-link", help="Send less: images on request only.")]
Theme = Annotated[str | None, typer.Option(help="dark or light.")]

#: Looking through all objects for rubbish takes some 50 ms, and Python begins it when many are made, which is while a
#: module is imported, a key is served or a file is read. So the newest are looked through more rarely, and the oldest
#: by the application's clock.
NEW_OBJECTS = 20_000
NEVER = 1 << 30

#: ``attach`` without the other commands.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings=SETTINGS)


def show(screen: str, **arguments: Any) -> NoReturn:
    """Open the dashboard on a screen; ends with its exit code. Raises EngineError as ``run_app``."""
    gc.set_threshold(NEW_OBJECTS, gc.get_threshold()[1], NEVER)
    from wmdd_tui.app import run_app  # Textual costs a tenth of a second, and a wrong option should be told without

    raise typer.Exit(run_app(screen, **arguments))


def pass_on(context: typer.Context, given: Mapping[str, bool | str | None]) -> None:
    """Give the options of the dashboard that stand before a command to that command, which may have them too.

    Raises ConfigError where it has not, rather than do without the protection of ``--readonly``.
    """
    group: Any = context.command
    known = {parameter.name for parameter in group.commands[context.invoked_subcommand].params}
    asked = {name: value for name, value in given.items() if value not in (False, None)}
    for name in asked:
        if name not in known:
            flag = f"--{name.removesuffix('_only').replace('_', '-')}"
            raise ConfigError(
                f"{flag} is an option of the dashboard, which `wmdd-tui {context.invoked_subcommand}` does not open",
                "leave it out, or give it where the dashboard opens: wmdd-tui, wmdd-tui attach, wmdd-tui new",
            )
    context.default_map = {str(context.invoked_subcommand): asked}


def new(
    preset: Preset = "",
    readonly: Readonly = False,
    slow_link: SlowLink = False,
    ascii_only: Ascii = False,
    theme: Theme = None,
) -> None:
    """Open the dashboard on the form of a new run: wmdd-tui new --preset digits"""
    if preset:
        from engine import presets

        presets.get(preset)
    show("new", preset=preset or None, readonly=readonly, slow_link=slow_link, ascii=ascii_only, theme=theme)


@app.command()
def attach(
    run_name: Attached = "",
    readonly: Readonly = False,
    slow_link: SlowLink = False,
    ascii_only: Ascii = False,
    theme: Theme = None,
) -> None:
    """Open the dashboard on a run: wmdd-tui attach RUN"""
    run = (None if run_name else _newest_alive()) or rundir.find(run_name)
    # Textual is imported while the other process reads.
    show(
        "monitor",
        run=str(run.path),
        ahead=ahead.begin(run),
        readonly=readonly,
        slow_link=slow_link,
        ascii=ascii_only,
        theme=theme,
    )


def _newest_alive() -> rundir.RunDir | None:
    return next((run for run in rundir.list_runs() if rundir.state_of(run) in rundir.ALIVE), None)


@app.callback()
def _named() -> None:
    """Keeps the command's name a part of the line; Typer leaves out that of an only command."""
