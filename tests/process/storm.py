"""``make faults``: SIGKILLs at random moments of all stages, then every fault once; one JSON line at the end.

Each run is killed once in each stage and resumed in between, then goes to its end; its images, soft labels, student and
accuracies must be, byte for byte, those of the undisturbed run. That one, and the end of every fourth run, are a plain
``python -m engine``; the others are forks of a process that has torch loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from faults import ALL, Ward, wait_for_stage
from nursery import Nursery
from scenes import STAGES, content, seen, small, stage_at, stage_seconds

from engine import rundir

PLACES = ("start", *STAGES)
PLAIN_EVERY = 4
#: A kill is drawn from the time a stage takes, and a little beyond: right behind it lies the next one's beginning.
BEYOND = 1.1
START_SECONDS = 1.0


def plain_run(run: rundir.RunDir) -> int:
    """``python -m engine RUN_DIR`` to its end."""
    with run.console_file.open("ab") as console:
        return subprocess.call([sys.executable, "-m", "engine", str(run.path)], stdout=console, stderr=console)


def storm(ward: Ward, kills: int, chance: random.Random) -> Counter[str]:
    """Kill and resume until there were ``kills``; says where each one hit."""
    seconds = ward.seconds
    hits: Counter[str] = Counter()
    runs = 0
    while sum(hits.values()) < kills:
        pace = chance.choice(["0", "0.05", "10"])
        run = rundir.create(small(f"run.checkpoint_seconds={pace}"))
        for place in PLACES:
            since = len(seen(run))
            engine = ward.start(run)
            if place != "start":
                wait_for_stage(run, engine, place, since)
            moment = chance.uniform(0, BEYOND * seconds.get(place, START_SECONDS))
            engine.pause_for(moment)
            if engine.poll() is None:
                engine.kill()
                hits[stage_at(seen(run)[since:])] += 1
        runs += 1
        if runs % PLAIN_EVERY == 0:
            code = plain_run(run)
            assert code == 0, run.console_file.read_text()
            assert content(run) == ward.expected["small"]
            ward.count("killed at random", "resumed")
            ward.count("killed at random", "identical")
        else:
            ward.finish("killed at random", run)
        ward.count("killed at random", "runs")
        print(f"{sum(hits.values())} kills, {runs} runs, all identical", file=sys.stderr, flush=True)
    return hits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs at random moments")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: another one each time")
    parser.add_argument("--only", default="", help="names of faults, separated by commas; default: all")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    wanted = [case for case in ALL if not options.only or case.__name__ in options.only.split(",")]
    began = time.monotonic()
    lost: list[str] = []
    hits: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="wmdd-faults-") as folder:
        os.environ["WMDD_HOME"] = str(Path(folder) / "home")
        with Nursery() as nursery:
            ward = Ward(nursery, Path(folder))
            undisturbed = rundir.create(small())
            assert plain_run(undisturbed) == 0, undisturbed.console_file.read_text()
            ward.expected["small"] = content(undisturbed)
            ward.seconds = stage_seconds(undisturbed)
            try:
                hits = storm(ward, options.kills, random.Random(seed))
            except Exception:
                traceback.print_exc()
                lost.append("killed at random")
            for case in wanted:
                try:
                    case(ward)
                    print(f"{case.__name__}: survived", file=sys.stderr, flush=True)
                except Exception:
                    traceback.print_exc()
                    lost.append(case.__name__)
    random_kills = ward.counts.pop("killed at random", Counter())
    answer = {
        "kills": sum(hits.values()),
        "resumes": sum(hits.values()),
        "runs": random_kills["runs"],
        "identical": random_kills["identical"],
        "lost": len(lost),
        "lost_in": lost,
        "kills_in": dict(sorted(hits.items())),
        "faults": {name: dict(counts) for name, counts in ward.counts.items()},
        "stop_seconds": ward.stop_seconds,
        "seed": seed,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(answer))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
