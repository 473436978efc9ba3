"""Progress of commands that may take longer than a moment, on stderr, so that stdout stays for the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from wmdd_tui.store.history import Report

PATIENCE_SECONDS = 1.0
PLAIN_SECONDS = 5.0


@contextmanager
def shown(what: str, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Report]:
    """Yield a function to call with the work done and the work in all.

    Nothing is shown of work that ends within a second; then a bar on a terminal, which goes at the end, and a line
    every five seconds elsewhere.
    """
    console = console or Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    task = bar.add_task(what)
    started = said = clock()
    visible = False

    def report(done: int, total: int) -> None:
        nonlocal said, visible
        now = clock()
        if now - started < PATIENCE_SECONDS:
            return
        if not console.is_terminal:
            if now - said >= PLAIN_SECONDS:
                said = now
                console.print(f"{what}: {100 * done // max(total, 1)} %", highlight=False, markup=False)
            return
        if not visible:
            visible = True
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        if visible:
            bar.stop()
