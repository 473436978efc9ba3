"""The Typer commands: thin; each does one thing with the store and the engine's torch-free half."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from engine import STAGE_HELP, __version__, config, presets, rundir
from engine.distributed.supervising import ALONE, Nodes
from engine.errors import ConfigError, RunDirError
from wmdd_tui.cli import (
    checking,
    compare,
    embed,
    evaluate,
    export,
    foreground,
    machine,
    opening,
    options,
    plot,
    showing,
    slurm,
    sweep,
    tables,
    training,
)  # fmt: skip
from wmdd_tui.cli.cache import cache_app
from wmdd_tui.cli.queue import queue_app
from wmdd_tui.store import deleting
from wmdd_tui.store.reader import RunTail
from wmdd_tui.store.runs import list_summaries, read_report, summarise

#: What is asked of a run comes to the same in every state.
ALIKE: Mapping[str, str] = {}

app = typer.Typer(
    help="Dataset distillation with the Wasserstein metric: launch, watch, compare. Without a command: the dashboard.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=opening.SETTINGS,
)
config_app = typer.Typer(help="Show, check and explain configurations.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(machine.datasets_app, name="datasets")
app.add_typer(queue_app, name="queue")
app.add_typer(cache_app, name="cache")
for _twin in (compare.compare, evaluate.evaluate, export.export, plot.plot, plot.animate, embed.embed, sweep.sweep):
    app.command()(_twin)
app.command()(machine.doctor)
app.command()(slurm.slurm)
app.command()(machine.teachers)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    readonly: options.Readonly = False,
    slow_link: options.SlowLink = False,
    ascii_only: options.Ascii = False,
    theme: options.Theme = None,
) -> None:
    if version:
        print(f"wmdd-tui {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        opening.show("runs", readonly=readonly, slow_link=slow_link, ascii=ascii_only, theme=theme)
    opening.pass_on(context, {"readonly": readonly, "slow_link": slow_link, "ascii_only": ascii_only, "theme": theme})


app.command()(opening.new)
app.command()(opening.attach)


def _begin(settings: config.RunConfig, detach: bool, as_json: bool, queue: bool = False, nodes: Nodes = ALONE) -> None:
    raise typer.Exit(foreground.start(rundir.create(settings), detach, as_json, queue, nodes))


def _continue(found: rundir.RunDir, detach: bool, as_json: bool, queue: bool, nodes: Nodes = ALONE) -> NoReturn:
    """Start the engine on a run that has been. One of another host is left to the engine, which waits for silence.

    A further host joins a run that is alive.
    """
    state = rundir.state_of(found)
    if state in rundir.ALIVE and state not in ("starting", "remote") and not nodes.node_rank:
        remedy = "let it go on: wmdd-tui unpause" if state == "paused" else "watch it: wmdd-tui watch"
        raise RunDirError(f"run {found.id} is {state}", f"{remedy} {found.id}")
    raise typer.Exit(foreground.start(found, detach, as_json, queue, nodes))


@app.command()
def run(
    file: options.ConfigFile = None,
    preset: options.Preset = "",
    assignments: options.Assignments = None,
    name: options.Name = None,
    device: options.Device = None,
    seed: options.Seed = None,
    ipc: options.Ipc = None,
    devices: options.Devices = None,
    nnodes: options.NodeCount = 1,
    rdzv_endpoint: options.RdzvEndpoint = "",
    node_rank: options.NodeRank = 0,
    resume: options.Resume = None,
    queue: options.Queue = False,
    detach: options.Detach = False,
    as_json: options.Json = False,
) -> None:
    """Run the whole pipeline: wmdd-tui run --preset digits --set recover.r_bn=100"""
    nodes = options.nodes(nnodes, rdzv_endpoint, node_rank, queue)
    if nodes.node_rank:
        raise ConfigError(
            f"--node-rank {node_rank} starts no new run",
            "start it on host 0, and here: wmdd-tui resume RUN --node-rank …",
        )
    settings = options.resolve(file, preset, assignments, name, device, seed, ipc, devices=devices)
    earlier = rundir.unfinished(settings) if options.may_resume(resume) else None
    if earlier is not None:
        _continue(earlier, detach, as_json, queue, nodes)
    _begin(settings, detach, as_json, queue, nodes)


def _stage_command(stage: str) -> Callable[..., None]:
    def command(
        file: options.ConfigFile = None,
        preset: options.Preset = "",
        assignments: options.Assignments = None,
        name: options.Name = None,
        device: options.Device = None,
        seed: options.Seed = None,
        ipc: options.Ipc = None,
        detach: options.Detach = False,
        as_json: options.Json = False,
    ) -> None:
        changes = [*(assignments or []), f'run.until="{stage}"']
        _begin(options.resolve(file, preset, changes, name, device, seed, ipc), detach, as_json)

    command.__doc__ = f"Run up to and including {stage}: {STAGE_HELP[stage]}"
    return command


for _stage in config.STAGES[:-1]:
    app.command(_stage)(_stage_command(_stage))
app.command("train")(training.train)


@app.command()
def resume(
    run_name: options.RunName = "",
    nnodes: options.NodeCount = 1,
    rdzv_endpoint: options.RdzvEndpoint = "",
    node_rank: options.NodeRank = 0,
    queue: options.Queue = False,
    detach: options.Detach = False,
    as_json: options.Json = False,
) -> None:
    """Continue a stopped, failed or crashed run where it stopped: wmdd-tui resume RUN"""
    nodes = options.nodes(nnodes, rdzv_endpoint, node_rank, queue)
    _continue(rundir.find(run_name), detach, as_json, queue, nodes)


@app.command()
def watch(run_name: options.RunName = "", as_json: options.Json = False) -> None:
    """Follow a run without a screen until it ends: wmdd-tui watch RUN"""
    found = rundir.find(run_name)
    raise typer.Exit(foreground.follow(found, RunTail(found), None, as_json))


@app.command()
def runs(as_json: options.Json = False) -> None:
    """List all runs, newest first."""
    rows = list_summaries()
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    if not rows:
        print(f"no runs under {rundir.runs_root()}; start one: wmdd-tui run --preset digits")
        return
    console = Console()
    if not console.is_terminal:
        console.width = tables.UNBOUNDED
    console.print(tables.of_runs(rows, console.width))


@app.command()
def show(
    run_name: options.RunName = "",
    whole: Annotated[
        bool, typer.Option("--config", help="Print the run's whole configuration as TOML instead.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show one run: state, results, settings."""
    found = rundir.find(run_name)
    if whole and not as_json:
        print(config.to_toml(found.config()), end="")
        return
    row, report = summarise(found), read_report(found)
    if as_json:
        print(json.dumps({**asdict(row), "report": report}))
        return
    console = Console()
    for line in showing.facts_told({**report, **asdict(row)}):
        console.print(Text(line), soft_wrap=True)
    for table in tables.of_report(report):
        console.print(table)
    if not row.problem:
        for line in ("", *showing.settings_told(found.config())):
            console.print(Text(line), soft_wrap=True)


@app.command()
def logs(
    run_name: options.RunName = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the engine writes.")] = False,
) -> None:
    """Print the engine's own output: wmdd-tui logs RUN -f"""
    found = rundir.find(run_name)
    try:
        with found.console_file.open(encoding="utf-8", errors="replace") as file:
            while True:
                shutil.copyfileobj(file, sys.stdout)
                sys.stdout.flush()
                if not follow or rundir.state_of(found) not in rundir.ALIVE:
                    break
                time.sleep(foreground.POLL_SECONDS)
            if not file.tell():
                told = f"`wmdd-tui show {found.id}` and `wmdd-tui watch {found.id}` say what it did"
                print(f"the engine of {found.id} printed nothing; {told}", file=sys.stderr)
    except FileNotFoundError:
        print(f"run {found.id} has no output yet", file=sys.stderr)


def _request(run_name: str, what: rundir.Request, done: str, back: str = "", states: Mapping[str, str] = ALIKE) -> None:
    """Ask a run for something and say what comes of it: ``done``, or what ``states`` has for the state it is in.

    ``back`` is the command that undoes it. Raises RunDirError.
    """
    found = rundir.find(run_name)
    state = rundir.state_of(found)
    if state not in rundir.ALIVE:
        raise RunDirError(f"run {found.id} is {state}, so there is nothing to {what}")
    found.request(what)
    print(f"{found.id}: {states.get(state, done)}" + (f"; go on with `wmdd-tui {back} {found.id}`" if back else ""))


@app.command()
def stop(run_name: options.RunName = "") -> None:
    """Stop a run after its iteration, with a checkpoint: wmdd-tui stop RUN"""
    told = {"queued": "leaves the queue", "paused": "stops where it is"}
    _request(run_name, "stop", "stops after this iteration", "resume", told)


@app.command()
def pause(run_name: options.RunName = "") -> None:
    """Hold a run after its iteration; its memory stays in use."""
    told = {"queued": "keeps its place while others go ahead", "paused": "is paused already"}
    _request(run_name, "pause", "pauses after this iteration", "unpause", told)


@app.command()
def unpause(run_name: options.RunName = "") -> None:
    """Let a paused run go on."""
    _request(run_name, "unpause", "goes on")


@app.command()
def delete(
    run_name: Annotated[str, typer.Argument(help="Run id, unique prefix, name or path.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run's directory; refused while it is alive."""
    found = rundir.find(run_name)
    deleting.refuse_alive(found)
    if not yes and not typer.confirm(f"delete {found.path} with its images and checkpoints?"):
        raise typer.Exit(1)
    deleting.delete(found)
    print(f"deleted {found.id}")


@app.command("presets")
def list_presets(as_json: options.Json = False) -> None:
    """List the presets."""
    if as_json:
        print(json.dumps({name: presets.describe(name) for name in presets.PRESETS}))
        return
    for name in presets.PRESETS:
        Console().print(Text(f"{name:24} {presets.describe(name)}"), soft_wrap=True)


@config_app.command("show")
def config_show(
    file: options.ConfigFile = None,
    preset: options.Preset = "",
    assignments: options.Assignments = None,
    device: options.Device = None,
    seed: options.Seed = None,
    ipc: options.Ipc = None,
    as_json: options.Json = False,
) -> None:
    """Print a complete configuration as TOML: wmdd-tui config show --preset digits > my.toml"""
    settings = options.resolve(file, preset, assignments, None, device, seed, ipc)
    print(json.dumps(settings.model_dump(mode="json")) if as_json else config.to_toml(settings), end="\n")


config_app.command("check")(checking.config_check)


@config_app.command("schema")
def config_schema(as_json: options.Json = False) -> None:
    """List every option with its default and meaning; --json prints the JSON schema."""
    if as_json:
        print(json.dumps(config.RunConfig.model_json_schema()))
        return
    console = Console()
    for key, default, text in config.describe():
        console.print(Text(f"{key} = {default}", style="bold"), Text(f"    {text}"), sep="\n", soft_wrap=True)
