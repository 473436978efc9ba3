"""Charts and images as files, written away from the event loop.

What writes them is imported by those who export alone: the dashboard opens sooner without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.screens.base import ActionScreen
from wmdd_tui.screens.choose import Choose
from wmdd_tui.store.exports import exports_of

KINDS = ("svg", "png", "csv")
CHOICES = (
    ("charts", "charts: SVG, PNG and CSV"),
    ("imagefolder", "images: a folder a class, as ImageFolder reads it"),
    ("parquet", "images: Parquet, as Hugging Face datasets reads it"),
    ("safetensors", "images: safetensors, as arrays"),
    ("fkd", "images and soft labels: as SRe2L's training reads them"),
)


def ask_export(screen: ActionScreen, run: RunDir) -> None:
    """Ask what to write of a run, then write it."""

    def answered(choice: str | None) -> None:
        if choice == "charts":
            export_charts(screen, [(run, run.id)], "charts")
        elif choice is not None:
            _export_images(screen, run, choice)

    screen.app.push_screen(Choose(f"Export {run.id} as", CHOICES), answered)


def _export_images(screen: ActionScreen, run: RunDir, form: str) -> None:
    def write() -> str:
        from wmdd_tui.store.exporting import export

        return f"images written to {export(run, exports_of(run) / form, form, force=True).folder}"

    _in_background(screen, write)


def _in_background(screen: ActionScreen, work: Callable[[], str]) -> None:
    """Do slow work in a thread; a notice says what came of it."""

    def call() -> None:
        try:
            told, bad = work(), False
        except EngineError as error:
            told, bad = str(error), True
        except OSError as error:
            told, bad = f"cannot write: {error.strerror}", True
        screen.app.call_from_thread(screen.say, told, bad)

    screen.run_worker(call, thread=True, exclusive=True, group="export", exit_on_error=False)


def export_charts(screen: ActionScreen, runs: Sequence[tuple[RunDir, str]], name: str) -> None:
    """Write all charts of the runs, each with its label, as SVG, PNG and CSV; a notice says where, or what is wrong."""

    def draw() -> str:
        from wmdd_tui.store.figures import plot

        folder = exports_of(runs[0][0])
        for kind in KINDS:
            plot(runs, folder / f"{name}.{kind}", force=True)
        return f"charts written to {folder / name}.svg, .png and .csv"

    screen.say("drawing the charts …")
    _in_background(screen, draw)
