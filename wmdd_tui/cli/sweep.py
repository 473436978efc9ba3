"""``wmdd-tui sweep``: a study of many runs, carried out, continued, and summed up in a table and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from engine.errors import ConfigError
from wmdd_tui.cli import options, studies
from wmdd_tui.cli.wording import flowing
from wmdd_tui.store import study, study_table
from wmdd_tui.store.studying import Ended

StudyPath = Annotated[
    Path | None, typer.Argument(metavar="STUDY", help="A study file, TOML; docs/studies.md shows one.")
]
Grid = Annotated[
    list[str] | None,
    typer.Option("--grid", metavar="KEY=V,V", help="Values of an option. Repeatable: every combination is a row."),
]
Repeats = Annotated[int | None, typer.Option(min=1, max=100, help="Seeds a row: 0, 1, … by default those of STUDY.")]
Group = Annotated[str, typer.Option(help="Name of the study, under which Runs shows its runs together.")]
TableOnly = Annotated[bool, typer.Option("--table", help="Run nothing: show what there is so far.")]


@flowing
def sweep(
    file: StudyPath = None,
    preset: options.Preset = "",
    grid: Grid = None,
    assignments: options.Assignments = None,
    repeats: Repeats = None,
    jobs: studies.Jobs = 1,
    devices: studies.Devices = None,
    group: Group = "",
    out: studies.Out = None,
    minutes: studies.Minutes = None,
    retry_failed: studies.Retry = False,
    table_only: TableOnly = False,
    as_json: options.Json = False,
) -> None:
    """Run a study: wmdd-tui sweep --preset digits --grid recover.r_bn=1,10,100 --repeats 3

    Every row is repeated over seeds. Teachers, statistics and barycenters that rows share are made once. Ctrl-C, a
    closed terminal or --minutes lose nothing: the same command goes on where the study stopped.
    """
    if file is not None and (preset or grid):
        raise ConfigError("both a study file and --preset or --grid are given", "use one, and --set for the rest")
    if file is None and not (preset or grid or assignments):
        raise ConfigError("no study is named", "give a study file, or --preset, --grid or --set; docs/studies.md")
    group = group or (file.stem if file is not None else "sweep")
    if file is not None:
        found = study.read_study(file)
        if repeats is not None:
            found.seeds = list(range(repeats))
        trials = study.trials_of_file(found, file.parent, assignments or [], group)
    else:
        rows = study.rows_of_grid(grid or [])
        trials = study.trials_of(options.resolve(None, preset, assignments), rows, range(repeats or 1), group)
    ended = Ended() if table_only else studies.work(trials, devices, jobs, minutes, retry_failed)
    lines = study_table.lines_of(study.find_runs(trials))
    if out is not None:
        studies.write_table(out, group, lines)
    if as_json:
        print(json.dumps({"group": group, "rows": study_table.as_json(lines)}, ensure_ascii=False))
    else:
        studies.show_table(group, lines)
    studies.leave(ended)
