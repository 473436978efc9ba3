"""``embed``: the distribution of the real images, and where the barycenters and the synthetic images lie in it."""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine import rundir
from wmdd_tui.cli import options
from wmdd_tui.cli.progress import shown
from wmdd_tui.cli.wording import flowing

if TYPE_CHECKING:
    from wmdd_tui.store.embedding import Figures, Projected

#: Colours that 16-colour terminals have too; beside them every class has a letter.
COLOURS = ("cyan", "yellow", "green", "magenta", "red", "blue", "white")
MOST_CLASSES = 10
#: Rows of the picture: one that is seen as a whole, but never less than shows anything.
ROWS, LEAST_ROWS = 30, 12
DIGITS = 4


class Projection(StrEnum):
    """How features come to the plane."""

    pca = "pca"
    tsne = "t-sne"


Classes = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="CLASS", help="A class by number or name, or all. Repeatable; the first ten."),
]
Method = Annotated[Projection, typer.Option(help="PCA of the real images, or t-SNE of all points.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Draw it into a file too: .svg, .png or .pdf.")]
Real = Annotated[int, typer.Option(min=10, max=100_000, help="Show at most so many real images a class.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of t-SNE and of the random real images.")]


@flowing
def embed(
    run_name: options.RunName = "",
    classes: Classes = None,
    method: Method = Projection.pca,
    out: Out = None,
    real: Real = 200,
    seed: Seed = 0,
    ascii_only: options.Ascii = False,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Show how a run's synthetic images lie among the real ones, as the teacher sees them.

    Features of the real images, of the barycenters and of the synthetic images are projected to the plane: real images
    are dots, a class's synthetic images its small letter, its barycenter's points the capital. Under the picture stand,
    for each class and without projection, the exact squared 2-Wasserstein distance (W2²) of the synthetic images'
    features to all real ones, beside that of as many random real images and of the barycenter, which is the least so
    many points can reach; and coverage, the percentage of real images that have a synthetic one within the distance of
    their fifth nearest real neighbour, beside that of the random real images.

    A run older than this command has kept no features of its images; `wmdd-tui resume RUN` measures them.

    Example: wmdd-tui embed digits --class 3 --class 8 --method t-sne

    Example: wmdd-tui embed digits --out embedding.svg --json
    """
    from wmdd_tui.store import embedding, embedding_figure, features  # numpy takes longer to import than other commands

    run = rundir.find(run_name)
    if out is not None:
        embedding_figure.file_type(out.expanduser(), force)
    with shown("measuring classes") as report:
        found = features.read_features(run, classes or (), MOST_CLASSES)
        figures = []
        for done, one in enumerate(found, start=1):
            figures.append(embedding.figures_of(one, seed))
            report(done, len(found))
    thinned = [embedding.thinned(one, real, seed) for one in found]
    flat = embedding.project(thinned, method.value, seed)
    if out is not None:
        title = f"{run.id}: {'PCA' if method is Projection.pca else 't-SNE'} of the teacher's features"
        embedding_figure.picture(flat, method.value, title, out.expanduser(), force)
    if as_json:
        print(json.dumps(_as_json(run, method, figures, flat, out), ensure_ascii=False))
        return
    console = Console()
    _draw(console, flat, ascii_only)
    console.print(_table(figures))
    if out is not None:
        console.print(Text(f"drawn in {out}"), soft_wrap=True)


def letters(count: int) -> list[str]:
    """A small letter for each class; after z they begin again."""
    return [string.ascii_lowercase[index % 26] for index in range(count)]


def _draw(console: Console, flat: Sequence[Projected], ascii_only: bool) -> None:
    """The picture as large as the terminal is wide, and what its letters mean."""
    from wmdd_tui.plotting.scatter import Cloud, draw

    names = letters(len(flat))
    clouds = [
        Cloud(one.real_N2, ((letter.upper(), one.points_K2), (letter, one.images_M2)))
        for one, letter in zip(flat, names, strict=True)
    ]
    height = max(LEAST_ROWS, min(ROWS, shutil.get_terminal_size().lines - 4))
    cells, owner = draw(clouds, height, max(20, console.width), ascii_only)
    for row, owners in zip(cells, owner, strict=True):
        line = Text(no_wrap=True)
        for character, index in zip(row.tolist(), owners.tolist(), strict=True):
            line.append(character, style=COLOURS[index % len(COLOURS)] if index >= 0 else None)
        console.print(line)
    dot = "." if ascii_only else "⠂"
    legend = Text(f"{dot} real  a synthetic  A barycenter  ")
    for index, (one, letter) in enumerate(zip(flat, names, strict=True)):
        legend.append(f"{letter} {one.name}  ", style=COLOURS[index % len(COLOURS)])
    console.print(legend)


def _table(figures: Sequence[Figures]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    titles = ("class", "real", "images", "W2²", "random real", "barycenter", "coverage %", "random real %")
    for title in titles:
        table.add_column(title, justify="left" if title == "class" else "right")
    for one, letter in zip(figures, letters(len(figures)), strict=True):
        table.add_row(
            Text(f"{letter} {one.name}"),
            f"{one.real}",
            f"{one.images}",
            f"{one.w2_images:.4g}",
            f"{one.w2_random:.4g}",
            "" if one.w2_barycenter is None else f"{one.w2_barycenter:.4g}",
            f"{one.coverage:.1f}",
            f"{one.coverage_random:.1f}",
        )
    if len(figures) > 1:
        barycenters = [one.w2_barycenter for one in figures if one.w2_barycenter is not None]
        table.add_section()
        table.add_row(
            "mean",
            "",
            "",
            f"{_mean([one.w2_images for one in figures]):.4g}",
            f"{_mean([one.w2_random for one in figures]):.4g}",
            f"{_mean(barycenters):.4g}" if barycenters else "",
            f"{_mean([one.coverage for one in figures]):.1f}",
            f"{_mean([one.coverage_random for one in figures]):.1f}",
        )
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _as_json(
    run: rundir.RunDir, method: Projection, figures: Sequence[Figures], flat: Sequence[Projected], out: Path | None
) -> dict[str, Any]:
    """Figures of each class and the places of all points shown."""
    places = [
        {"real": one.real_N2.round(DIGITS).tolist(), "images": one.images_M2.round(DIGITS).tolist(),
         "barycenter": one.points_K2.round(DIGITS).tolist()}
        for one in flat
    ]  # fmt: skip
    classes = [asdict(one) | place for one, place in zip(figures, places, strict=True)]
    return {"run_id": run.id, "method": method.value, "classes": classes, "file": str(out) if out else None}
