"""An embedding as a picture file: SVG, PNG or PDF by matplotlib, which is imported only here, only when drawn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from engine.errors import InputError
from wmdd_tui.store.embedding import Method, Projected
from wmdd_tui.store.figures import COLOURS, NO_DATE, STABLE
from wmdd_tui.store.placing import place_file, refuse_taken

FILE_TYPES = ("svg", "png", "pdf")
AXES = {"pca": ("first principal component", "second principal component"), "t-sne": ("", "")}
#: More names have no room beside the picture.
MOST_NAMES = 20


def file_type(target: Path, force: bool) -> str:
    """The kind of file a name stands for, by its suffix. Raises InputError where it can or may not be written."""
    refuse_taken(target, force)
    kind = target.suffix.lower().lstrip(".")
    if kind not in FILE_TYPES:
        raise InputError(f"'{target.name}' does not say which kind of file to write", "end it in .svg, .png or .pdf")
    return kind


def picture(shown: Sequence[Projected], method: Method, title: str, target: Path, force: bool = False) -> None:
    """Draw real images as dots, barycenters as crosses and synthetic images as discs, a colour a class.

    Raises InputError, RunFailure (cannot write).
    """
    kind = file_type(target, force)
    place_file(target, force, lambda path: _draw(path, kind, shown, method, title))


def _draw(path: Path, kind: str, shown: Sequence[Projected], method: Method, title: str) -> None:
    import matplotlib  # slow to import, and only pictures need it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(STABLE), warnings.catch_warnings():
        # A name in letters the font lacks is drawn with boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(8, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        colours = COLOURS if len(shown) <= len(COLOURS) else _many(len(shown))
        for one, colour in zip(shown, colours, strict=False):
            axes.scatter(one.real_N2[:, 0], one.real_N2[:, 1], s=6, color=colour, alpha=0.25, linewidths=0)
            axes.scatter(one.points_K2[:, 0], one.points_K2[:, 1], s=42, color=colour, marker="x", linewidths=1.4)
            images_M2 = one.images_M2
            axes.scatter(images_M2[:, 0], images_M2[:, 1], s=30, color=colour, edgecolors="black", linewidths=0.6)
        kinds = [
            Line2D([], [], linestyle="", marker="o", markersize=3, alpha=0.4, color="gray", label="real"),
            Line2D([], [], linestyle="", marker="x", color="gray", label="barycenter"),
            Line2D([], [], linestyle="", marker="o", color="gray", markeredgecolor="black", label="synthetic"),
        ]
        names = [
            Line2D([], [], linestyle="", marker="s", color=colour, label=f" {one.name}")
            for one, colour in zip(shown, colours, strict=False)
        ]
        legend = figure.legend(handles=[*kinds, *names[:MOST_NAMES]], loc="outside right upper", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a class may be called anything
        axes.set_title(title, loc="left", fontsize="medium", parse_math=False)
        axes.set_xlabel(AXES[method][0])
        axes.set_ylabel(AXES[method][1])
        if method == "t-sne":
            axes.set_xticks([])
            axes.set_yticks([])
        figure.savefig(path, format=kind, dpi=150, metadata=NO_DATE[kind])


def _many(count: int) -> list[str]:
    """A colour for each of many classes."""
    import matplotlib
    from matplotlib.colors import to_hex

    scale = matplotlib.colormaps["gist_rainbow"]
    return [to_hex(scale(index / count)) for index in range(count)]
