"""Opening a finished run of 1,000,000 iterations: ``wmdd-tui attach`` until its end stands on the screen, and memory.

Beside it the reading alone, in this process, and memory beyond what the dashboard takes on a run of 100 iterations.
Budget: under 2 s and under 150 MB.

    python benchmarks/app_open.py [-n 5] [--iterations 1000000] [--per-second 160]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from figures import report, spread
from pty_session import PtySession, dashboard
from recorded_run import finished_run

from engine.rundir import RunDir
from wmdd_tui.store.reader import EventTail
from wmdd_tui.store.view import RunView

PATIENCE = 300.0
BUDGET_SECONDS = 2.0
BUDGET_BYTES = 150e6


def read_alone(run: RunDir) -> float:
    """Seconds to bring a view up to a run's events."""
    begin = time.monotonic()
    tail, view = EventTail(run.events_file), RunView()
    while batch := tail.poll():
        view.apply_all(batch)
    seconds = time.monotonic() - begin
    if view.end is None:
        raise SystemExit("the recorded run was not read to its end")
    return seconds


def opened(run: RunDir, env: dict[str, str]) -> tuple[float, int]:
    """Seconds from the command to the whole run on the screen, and the resident bytes then."""
    with PtySession(dashboard("attach", str(run.path)), 160, 48, env) as session:
        # The student's accuracy is in the last lines of the file, so it is on the screen when all has been read.
        arrived, _ = session.moment(lambda text: "student 60.00" in text and "finished" in text, PATIENCE)
        return arrived - session.started, session.memory()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=5, help="times each run is opened")
    parser.add_argument("--iterations", type=int, default=1_000_000)
    parser.add_argument("--per-second", type=float, default=160.0, help="iterations a second; fewer make more lines")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        env = {"WMDD_HOME": home}
        root = Path(home) / "runs"
        large = finished_run(asked.iterations, asked.per_second, root)
        small = finished_run(100, asked.per_second, root)
        size = large.events_file.stat().st_size
        with large.events_file.open("rb") as file:
            lines = sum(1 for _ in file)
        alone = [read_alone(large) for _ in range(asked.n)]
        pairs = [(opened(large, env), opened(small, env)) for _ in range(asked.n + 1)][1:]
    seconds, memory = spread([one[0] for one, _ in pairs]), spread([one[1] / 1e6 for one, _ in pairs], 1)
    report(
        "app_open", load, iterations=asked.iterations, lines=lines, megabytes=round(size / 1e6, 1),
        read_alone_s=spread(alone), open_s=seconds, open_small_s=spread([two[0] for _, two in pairs]),
        memory_mb=memory, memory_small_mb=spread([two[1] / 1e6 for _, two in pairs], 1),
        memory_beyond_small_mb=spread([(one[1] - two[1]) / 1e6 for one, two in pairs], 1),
        budget_s=BUDGET_SECONDS, budget_mb=BUDGET_BYTES / 1e6,
        within=seconds["median"] < BUDGET_SECONDS and memory["median"] < BUDGET_BYTES / 1e6,
    )  # fmt: skip


if __name__ == "__main__":
    main()
