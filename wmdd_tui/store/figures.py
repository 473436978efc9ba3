"""Charts of runs as files: SVG, PNG, PDF by matplotlib (imported only here, only when drawn), and CSV."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.rundir import RunDir
from wmdd_tui.store.curves import COLUMNS, PANELS, RunCurves, read_curves, table
from wmdd_tui.store.history import Report, share_of, silent
from wmdd_tui.store.placing import place_file, refuse_taken
from wmdd_tui.store.series import Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE_TYPES = ("svg", "png", "csv", "pdf")
#: Okabe and Ito's palette, which colour-blind people tell apart; styles repeat the distinction without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
TERM_NAMES = {"total": "total", "ce": "cross-entropy", "feature": "feature", "bn": "BN"}
TITLES = {"losses": "Losses of recovery", "bn": "BatchNorm term", "metrics": "Accuracy on the validation images"}
POINTS = 2000
HEAT_COLUMNS = 400
MOST_BOUNDARIES = 50
MOST_LAYER_NAMES = 24
# What makes one and the same chart one and the same file.
STABLE: Any = {"svg.hashsalt": "wmdd-tui", "svg.fonttype": "none"}
NO_DATE: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def plot(
    runs: Sequence[tuple[RunDir, str]],
    target: Path,
    panels: Sequence[str] = PANELS,
    linear: bool = False,
    force: bool = False,
    report: Report = silent,
) -> list[str]:
    """Draw runs, each with its label, into a file; returns the panels it shows.

    The suffix of ``target`` chooses the kind of file. A CSV file holds every recorded value, a picture at most
    ``POINTS`` a curve. Raises InputError, RunDirError (nothing recorded), RunFailure (cannot write).
    """
    refuse_taken(target, force)
    kind = target.suffix.lower().lstrip(".")
    if kind not in FILE_TYPES:
        raise InputError(
            f"'{target.name}' does not say which kind of file to write", "end it in .svg, .png, .csv or .pdf"
        )
    wanted = tuple(panel for panel in PANELS if panel in panels)

    curves = [read_curves(run, label, share_of(report, index, len(runs))) for index, (run, label) in enumerate(runs)]
    shown = [panel for panel in wanted if any(_has(one, panel) for one in curves)]
    if not shown:
        names = ", ".join(run.id for run, _ in runs)
        raise InputError(f"nothing of {' or '.join(wanted)} was recorded in {names}", "choose another --panel")
    if kind == "csv":
        place_file(target, force, lambda path: _write_csv(path, runs, wanted))
    else:
        place_file(target, force, lambda path: _draw(path, kind, curves, shown, linear))
    return shown


def _has(curves: RunCurves, panel: str) -> bool:
    if panel == "metrics":
        return bool(curves.student or curves.teacher)
    return bool(curves.losses if panel == "losses" else curves.layers or "bn" in curves.losses)


def _write_csv(path: Path, runs: Sequence[tuple[RunDir, str]], panels: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for run, label in runs:
            writer.writerows(table(run, label, panels))


def _draw(path: Path, kind: str, curves: Sequence[RunCurves], panels: Sequence[str], linear: bool) -> None:
    import matplotlib  # half a second that no other command pays
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STABLE), warnings.catch_warnings():
        # A name in letters the font lacks is drawn with boxes; nobody who reads this program's output could mend that.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(9, 3.4 * len(panels)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for panel, axis in zip(panels, axes, strict=True):
            axis.set_title(TITLES[panel], loc="left")
            if panel == "metrics":
                _metrics(axis, curves)
            elif len(curves) > 1:
                _terms_of_runs(axis, curves, "total" if panel == "losses" else "bn", linear)
            elif panel == "losses":
                _losses(axis, curves[0], linear)
            else:
                _layers(figure, axis, curves[0], linear)
        title = ", ".join(one.label for one in curves) if len(curves) < 3 else f"{len(curves)} runs"
        figure.suptitle(title, parse_math=False)
        figure.savefig(path, format=kind, dpi=150, metadata=NO_DATE[kind])


def _line(axis: Axes, series: Series, length: int, index: int, label: str) -> Any:
    """One curve, thinned to the mean of each column; its range is shaded where columns hold several values."""
    columns = min(length, POINTS)
    found = series.window(0, length, columns)
    at = (np.arange(columns) + 0.5) * length / columns - 0.5
    known = np.isfinite(found.mean)
    colour = COLOURS[index % len(COLOURS)]
    if length > columns:
        axis.fill_between(at[known], found.lo[known], found.hi[known], color=colour, alpha=0.15, linewidth=0)
    style = STYLES[index // len(COLOURS) % len(STYLES)]
    return axis.plot(at[known], found.mean[known], color=colour, linestyle=style, linewidth=1.2, label=label)[0]


def _scale(axis: Axes, series: Sequence[Series], length: int, linear: bool) -> None:
    """Logarithmic where every curve has positive values; a curve of zeros alone would vanish from it unsaid."""
    windows = [one.window(0, length, min(length, POINTS)) for one in series]
    positive = all(bool(np.nanmax(one.hi, initial=-np.inf) > 0) for one in windows)
    axis.set_yscale("linear" if linear or not positive else "log")
    axis.set_xlim(-0.5, length - 0.5)
    axis.grid(alpha=0.25)


def _legend(axis: Axes, lines: list[Any]) -> None:
    legend = axis.legend(lines, [str(line.get_label()) for line in lines], fontsize="small", edgecolor="none")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a run's name is a dollar


def _boundaries(axis: Axes, curves: RunCurves) -> None:
    if 1 < curves.chunks <= MOST_BOUNDARIES:
        for chunk in range(1, curves.chunks):
            axis.axvline(chunk * curves.iterations - 0.5, color="0.8", linewidth=0.8, zorder=0)


def _losses(axis: Axes, curves: RunCurves, linear: bool) -> None:
    lines = [
        _line(axis, series, curves.length, index, TERM_NAMES.get(term, term))
        for index, (term, series) in enumerate(curves.losses.items())
    ]
    _boundaries(axis, curves)
    _scale(axis, list(curves.losses.values()), curves.length, linear)
    axis.set_xlabel("iteration (all chunks, one after the other)")
    axis.set_ylabel("loss")
    _legend(axis, lines)


def _terms_of_runs(axis: Axes, curves: Sequence[RunCurves], term: str, linear: bool) -> None:
    having = [(index, one) for index, one in enumerate(curves) if term in one.losses]
    length = max([1, *(one.length for _, one in having)])
    lines = [_line(axis, one.losses[term], length, index, one.label) for index, one in having]
    _scale(axis, [one.losses[term] for _, one in having], length, linear)
    axis.set_xlabel("iteration (all chunks, one after the other)")
    axis.set_ylabel(f"{TERM_NAMES[term]} loss")
    _legend(axis, lines)


def _layers(figure: Figure, axis: Axes, curves: RunCurves, linear: bool) -> None:
    """The term of every layer over time, as colours; of a run without layers the sum, as a line."""
    if not curves.layers:
        _terms_of_runs(axis, [curves], "bn", linear)
        return
    from matplotlib.colors import LogNorm

    columns = max(1, min(HEAT_COLUMNS, curves.layer_samples, curves.length))
    rows = [_held(series.window(0, curves.length, columns).mean) for series in curves.layers.values()]
    values = np.ma.masked_invalid(np.stack(rows))
    positive = values[values > 0].compressed()
    norm = None
    if not linear and positive.size and positive.min() < positive.max():
        norm = LogNorm(float(positive.min()), float(positive.max()))
    edges = np.linspace(0, curves.length, columns + 1) - 0.5
    mesh = axis.pcolormesh(edges, np.arange(len(rows) + 1), values, norm=norm, cmap="viridis", rasterized=True)
    figure.colorbar(mesh, ax=axis, label="BN term")
    step = -(-len(rows) // MOST_LAYER_NAMES)
    axis.set_yticks(
        np.arange(0, len(rows), step) + 0.5, list(curves.layers)[::step], fontsize="x-small", parse_math=False
    )
    axis.invert_yaxis()
    axis.set_xlabel("iteration (all chunks, one after the other)")
    axis.set_ylabel("layer, input at the top")


def _held(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each gap takes the value before it: layers are recorded only now and then."""
    known = np.where(np.isfinite(values), np.arange(len(values)), -1)
    latest = np.maximum.accumulate(known)
    return np.where(latest >= 0, values[np.maximum(latest, 0)], np.nan)


def _metrics(axis: Axes, curves: Sequence[RunCurves]) -> None:
    """The student's top-1 over its epochs, and the teacher's last as a level line; without a student, the teacher's."""
    lines = []
    several = len(curves) > 1
    for index, one in enumerate(curves):
        colour, name = COLOURS[index % len(COLOURS)], f"{one.label}: " if several else ""
        points = one.student or one.teacher
        if not points:
            continue
        epochs = sorted(points)
        who = "student" if one.student else "teacher"
        lines += axis.plot(
            epochs, [points[epoch] for epoch in epochs], color=colour, marker="o", markersize=3, label=name + who
        )
        if one.student and one.teacher_top1 is not None:
            lines.append(axis.axhline(one.teacher_top1, color=colour, linestyle=":", label=f"{name}teacher"))
    axis.set_xlabel("epoch")
    axis.set_ylabel("top-1 [%]")
    axis.grid(alpha=0.25)
    _legend(axis, lines)
