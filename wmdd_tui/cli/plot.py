"""``plot`` and ``animate``: pictures of a run for a paper, a chat or a page."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from engine import rundir
from wmdd_tui.cli import options
from wmdd_tui.cli.progress import shown
from wmdd_tui.cli.wording import flowing


class Panel(StrEnum):
    """What a plot can show."""

    losses = "losses"
    bn = "bn"
    metrics = "metrics"


Runs = Annotated[list[str], typer.Argument(metavar="RUN", help="One run or several: ids, prefixes, names or paths.")]
PlotOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write: .svg, .png, .pdf or .csv.")]
Panels = Annotated[list[Panel] | None, typer.Option("--panel", help="Show only this. Repeatable; all by default.")]
Linear = Annotated[bool, typer.Option("--linear", help="Linear axes for losses, which are logarithmic otherwise.")]


@flowing
def plot(
    runs: Runs,
    out: PlotOut,
    panels: Panels = None,
    linear: Linear = False,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Draw the curves of runs into a file; its ending chooses SVG, PNG, PDF or CSV.

    losses: total, cross-entropy, feature and BatchNorm loss at every iteration of recovery, all chunks one after the
    other. bn: the BatchNorm term of every layer over time, as colours. metrics: the student's top-1 over its epochs,
    with the teacher's as a dotted line.

    Of several runs the same figures are laid over each other: total loss, BatchNorm loss, accuracy.

    CSV holds every recorded value, one a line: run, panel, stage, chunk, step (iteration from 0, epoch from 1), name,
    value. A picture shows at most 2000 points a curve, their range shaded.

    Example: wmdd-tui plot baseline --out losses.svg --panel losses

    Example: wmdd-tui plot baseline lambda-100 --out both.png
    """
    from wmdd_tui.store import comparison, figures  # numpy takes longer to import than other commands take to run

    found = list(dict.fromkeys(rundir.find(name) for name in runs))
    with shown("reading runs") as report:
        labels = [(run, label) for run, label in zip(found, comparison.run_labels(found), strict=True)]
        wanted = [panel.value for panel in panels or Panel]
        drawn = figures.plot(labels, out.expanduser(), wanted, linear, force, report)
    if as_json:
        print(json.dumps({"file": str(out), "runs": [run.id for run in found], "panels": drawn}))
    else:
        Console().print(Text(f"{', '.join(drawn)} of {', '.join(run.id for run in found)} in {out}"), soft_wrap=True)


Run = Annotated[str, typer.Argument(metavar="RUN", help="Run id, unique prefix, name or path.")]
GifOut = Annotated[Path, typer.Option("--out", metavar="FILE", help="File to write, ending in .gif.")]
Chunk = Annotated[int, typer.Option(min=0, help="Which chunk to show, from 0: the images that are optimised together.")]
Fps = Annotated[float, typer.Option(min=0.1, max=50, help="Previews a second.")]
Scale = Annotated[int, typer.Option(min=0, max=64, help="Enlarge each pixel so many times; 0 chooses a good size.")]
Columns = Annotated[int, typer.Option(min=1, max=10, help="Images in a row.")]
Hold = Annotated[float, typer.Option(min=0, max=60, help="Seconds the finished images stay before it repeats.")]


@flowing
def animate(
    run_name: Run,
    out: GifOut,
    chunk: Chunk = 0,
    fps: Fps = 6.0,
    scale: Scale = 0,
    columns: Columns = 5,
    hold: Hold = 2.5,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Show classes emerging from noise, as an animated GIF of the previews kept during recovery.

    Up to ten images of one chunk, with their class names and the iteration; the last frame is the finished images and
    stays longer. How many frames there are is decided before the run, by recover.preview_every (iterations between
    previews; 0 keeps none).

    Example: wmdd-tui run --preset digits --set recover.preview_every=10

    Example: wmdd-tui animate digits --out digits.gif --fps 12
    """
    from wmdd_tui.store import animation

    run = rundir.find(run_name)
    with shown("drawing frames") as report:
        done = animation.animate(run, out.expanduser(), chunk, fps, scale, columns, hold, force, report)
    if as_json:
        print(json.dumps({"run_id": run.id, **asdict(done), "file": str(done.file)}))
        return
    what = f"{done.frames} frames of {done.width}×{done.height}, {done.seconds:.1f} s, in {done.file}"
    Console().print(Text(what), soft_wrap=True)
