"""``make fuzz``: more than 10,000 hostile inputs at every entry point; the last line is one JSON object.

No input may end in anything but success or one of our errors, hang for 10 s, write outside its box, or start a program.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from entries import ENTRIES
from guard import box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CASES = 10_200


def cases(entry: Callable[[Any, Path], None], count: int) -> int:
    """Feed an entry ``count`` drawn inputs; returns how many. Raises what it raised, with the smallest input."""
    done = 0

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def run(data: Any) -> None:
        nonlocal done
        done += 1
        with box() as folder:
            entry(data, folder)

    _make_tables()
    run()
    return done


@settings(max_examples=1, database=None)
@given(st.text())
def _make_tables(_text: str) -> None:
    """Hypothesis' tables of characters take seconds once; no input should be blamed for them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES, help="inputs in all")
    parser.add_argument("--only", default="", help="names of entries, separated by commas; default: all")
    options = parser.parse_args()
    wanted = [entry for entry in ENTRIES if not options.only or entry.__name__ in options.only.split(",")]
    began = time.monotonic()
    counts: dict[str, int] = {}
    failures: list[str] = []
    for entry in wanted:
        try:
            counts[entry.__name__] = cases(entry, -(-options.cases // len(wanted)))
            print(f"{entry.__name__}: {counts[entry.__name__]} inputs", file=sys.stderr, flush=True)
        except Exception:
            traceback.print_exc()
            failures.append(entry.__name__)
    answer = {
        "cases": sum(counts.values()),
        "failures": len(failures),
        "failed": failures,
        "cases_of": counts,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(answer))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
