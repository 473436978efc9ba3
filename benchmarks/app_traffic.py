"""What watching costs: bytes a second on a terminal of 160×48, and the dashboard's share of a core.

A recorded recovery is replayed at true speed by another process, the panels are all shown but the images. With
``--images`` they are shown too, with ``--slow-link`` the dashboard is told of a slow link, ``--recorded FILE`` replays
a true run's events. Budgets: 3 KB/s, 1 KB/s on a slow link, 5 % of a core.

    python benchmarks/app_traffic.py [--seconds 60] [--slow-link] [--images] [--recorded events.jsonl]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import report, spread
from pty_session import PtySession, dashboard
from recorded_run import new_run

PATIENCE = 60.0
WARM_UP_SECONDS = 8.0
PIECE_SECONDS = 5.0
BUDGET_BYTES = 3000.0
SLOW_BUDGET_BYTES = 1000.0
BUDGET_CPU_PERCENT = 5.0


def watch(asked: argparse.Namespace, home: Path, replaying: list[str]) -> tuple[list[float], float, str]:
    """Bytes a second in each piece of time, percent of a core, and the last screen."""
    run = new_run(home / "runs")
    command = dashboard("attach", str(run.path), *(["--slow-link"] if asked.slow_link else []))
    engine = subprocess.Popen([*replaying[:2], str(run.path), *replaying[2:]])
    try:
        # The screen is emulated to see that it shows what is measured, and only read while the costs are taken.
        with PtySession(command, 160, 48, {"WMDD_HOME": str(home)}) as session:
            session.wait_for("running", PATIENCE)
            if not asked.images:
                session.press("4")
                session.drain(1.0)
                session.press("4")
            session.drain(WARM_UP_SECONDS)
            emulator, session.stream = session.stream, None
            before = session.cpu_seconds()
            pieces = [session.drain(PIECE_SECONDS) / PIECE_SECONDS for _ in range(int(asked.seconds / PIECE_SECONDS))]
            percent = 100 * (session.cpu_seconds() - before) / (len(pieces) * PIECE_SECONDS)
            session.stream = emulator
            session.resize(160, 47)  # everything is painted anew, so the emulator sees the whole screen
            session.wait_for("total", PATIENCE)
            return pieces, percent, session.text
    finally:
        engine.kill()
        engine.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--slow-link", action="store_true")
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--recorded", type=Path, help="an events.jsonl to replay in place of the synthetic run")
    parser.add_argument("--show", action="store_true", help="print the last screen")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    recorder = str(Path(__file__).with_name("recorded_run.py"))
    replaying = [sys.executable, recorder, "--replay", *([str(asked.recorded)] if asked.recorded else [])]
    with tempfile.TemporaryDirectory() as home:
        pieces, percent, screen = watch(asked, Path(home), replaying)
    if asked.show:
        print(screen)
    mean, budget = sum(pieces) / len(pieces), SLOW_BUDGET_BYTES if asked.slow_link else BUDGET_BYTES
    report(
        "app_traffic", load, slow_link=asked.slow_link, images=asked.images, size="160x48", seconds=asked.seconds,
        events="recorded" if asked.recorded else "synthetic, 4 Hz, 160 it/s, 20 layers",
        bytes_per_s=round(mean), bytes_per_s_pieces=spread(pieces, 0), cpu_percent=round(percent, 1),
        budget_bytes_per_s=budget, budget_cpu_percent=BUDGET_CPU_PERCENT,
        within=mean < budget and percent < BUDGET_CPU_PERCENT,
    )  # fmt: skip


if __name__ == "__main__":
    main()
