"""The commands that open the dashboard. They need none of what the others do, so it is not imported for them."""

from __future__ import annotations

import gc
from typing import Annotated, Any, NoReturn

import typer

from engine import rundir
from wmdd_tui.store import ahead

SETTINGS = {"help_option_names": ["-h", "--help"]}

RunName = Annotated[str, typer.Argument(help="Run id, unique prefix, name or path; the newest when left out.")]
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
    run_name: RunName = "",
    readonly: Readonly = False,
    slow_link: SlowLink = False,
    ascii_only: Ascii = False,
    theme: Theme = None,
) -> None:
    """Open the dashboard on a run: wmdd-tui attach RUN"""
    run = rundir.find(run_name)
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


@app.callback()
def _named() -> None:
    """Keeps the command's name a part of the line; Typer leaves out that of an only command."""
