"""From a key to what it paints while a run's events arrive: p95 under 100 ms.

Another process writes a recovery at true speed, or, with ``--flood``, five megabytes a second, which no engine does.
Keys that change the chart, open and close the filter and give one panel the screen come at uneven intervals. Each is
timed from its byte to the arrival of the bytes after which a terminal emulator shows its effect; the processor time
that the dashboard takes meanwhile says what a quieter machine would need. Escape is not among
them: every terminal program waits a moment after it, for it also begins the codes of other keys.

    python benchmarks/app_latency.py [--keys 200] [--slow-link] [--flood] [--recorded events.jsonl]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import percentile, report, spread
from pty_session import Gone, PtySession, dashboard
from recorded_run import new_run

PATIENCE = 60.0
WARM_UP_SECONDS = 5.0
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 0.5
BUDGET_MS = 100.0
FLOOD_BYTES = 5 << 20
#: Keys in an order that ends where it began; each brings a text to the screen, or takes it away.
CYCLE = (
    ("y", " log ", True),
    ("y", " log ", False),
    ("s", "smoothed", True),
    ("s", "smoothed", False),
    ("/", "filter layers and log", True),
    ("enter", "filter layers and log", False),
    ("m", "BN per layer", False),
    ("m", "BN per layer", True),
)


def timed(session: PtySession, key: str, part: str, comes: bool) -> tuple[float, float]:
    """Seconds from a key to the bytes that show its effect, and the program's processor time in them. Raises Gone."""
    if (part in session.text) == comes:
        raise Gone(f"'{part}' is true before the key {key}\n{session.text}")
    before, begin = session.cpu_seconds(), time.monotonic()
    session.press(key)
    arrived, busy = session.moment(lambda text: (part in text) == comes, PATIENCE)
    return arrived - begin, busy - before


def watch(asked: argparse.Namespace, home: Path, writing: list[str]) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of each key that was pressed, on the clock and of the program's processor time."""
    chance = random.Random(0)
    run = new_run(home / "runs")
    command = dashboard("attach", str(run.path), *(["--slow-link"] if asked.slow_link else []))
    found: dict[str, list[tuple[float, float]]] = {}
    engine = subprocess.Popen([*writing[:2], str(run.path), *writing[2:]])
    try:
        with PtySession(command, 160, 48, {"WMDD_HOME": str(home)}) as session:
            session.wait_for("running", PATIENCE)
            session.wait_for("BN per layer", PATIENCE)
            session.drain(WARM_UP_SECONDS)
            for turn in range(asked.keys):
                key, part, comes = CYCLE[turn % len(CYCLE)]
                seconds, busy = timed(session, key, part, comes)
                found.setdefault(key, []).append((1000 * seconds, 1000 * busy))
                session.drain(chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE))
    finally:
        engine.kill()
        engine.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=200, help="how many keys to press")
    parser.add_argument("--slow-link", action="store_true")
    parser.add_argument("--flood", action="store_true", help="5 MB/s of events")
    parser.add_argument("--recorded", type=Path, help="an events.jsonl to replay in place of the synthetic run")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    writing = [sys.executable, str(Path(__file__).with_name("recorded_run.py"))]
    if asked.flood:
        writing += ["--flood", str(FLOOD_BYTES)]
    else:
        writing += ["--replay", *([str(asked.recorded)] if asked.recorded else [])]
    with tempfile.TemporaryDirectory() as home:
        found = watch(asked, Path(home), writing)
    every = [one for values in found.values() for one, _ in values]
    busy = [one for values in found.values() for _, one in values]
    p95 = percentile(every, 0.95)
    report(
        "app_latency", load, keys=len(every), size="160x48", slow_link=asked.slow_link,
        events="5 MB/s" if asked.flood else "recorded" if asked.recorded else "synthetic, 4 Hz, 160 it/s, 20 layers",
        ms=spread(every, 1), p95_ms=round(p95, 1),
        ms_by_key={key: spread([clock for clock, _ in values], 1) for key, values in found.items()},
        cpu_ms=spread(busy, 1), p95_cpu_ms=round(percentile(busy, 0.95), 1),
        cpu_ms_by_key={key: spread([one for _, one in values], 1) for key, values in found.items()},
        budget_p95_ms=BUDGET_MS, within=p95 < BUDGET_MS,
    )  # fmt: skip


if __name__ == "__main__":
    main()
