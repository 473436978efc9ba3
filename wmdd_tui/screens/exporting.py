"""Charts as files, drawn away from the event loop."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import EngineError
from engine.rundir import RunDir
from wmdd_tui.screens.base import ActionScreen
from wmdd_tui.store.exports import exports_of
from wmdd_tui.store.figures import plot

KINDS = ("svg", "png", "csv")


def export_charts(screen: ActionScreen, runs: Sequence[tuple[RunDir, str]], name: str) -> None:
    """Write all charts of the runs, each with its label, as SVG, PNG and CSV; a notice says where, or what is wrong."""

    def draw() -> None:
        try:
            folder = exports_of(runs[0][0])
            for kind in KINDS:
                plot(runs, folder / f"{name}.{kind}", force=True)
        except EngineError as error:
            told, bad = str(error), True
        except OSError as error:
            told, bad = f"cannot write the charts: {error.strerror}", True
        else:
            told, bad = f"charts written to {folder / name}.svg, .png and .csv", False
        screen.app.call_from_thread(screen.say, told, bad)

    screen.say("drawing the charts …")
    screen.run_worker(draw, thread=True, exclusive=True, group="export", exit_on_error=False)
