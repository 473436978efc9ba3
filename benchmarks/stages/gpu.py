"""Every row that needs a GPU, each in a process of its own, so that none is in another's memory or way.

A row that fails or takes too long is told and the others go on; what no time is left for is named.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from rich.console import Console

from benchmarks.harness.options import Options
from benchmarks.harness.result import ROOT

#: The rows of the targets, the most important first, and the longest each may take, in seconds.
ROWS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("recover",), 90),
    (("recover", "--repeats", "5", "--set", "recover.compile=on"), 150),
    (("squeeze", "--repeats", "5", "--iterations", "2"), 100),
    (("statistics", "--repeats", "5", "--workers", "8"), 100),
    (("telemetry",), 50),
    (("barycenter", "--repeats", "5"), 150),
    (("relabel", "--repeats", "5", "--iterations", "2", "--workers", "4"), 60),
    (("train", "--repeats", "5", "--iterations", "2", "--workers", "4"), 60),
    (("concurrency", "--repeats", "5", "--classes", "12"), 60),
    (("recover", "--repeats", "5", "--set", "recover.precision=fp32"), 80),
    (("statistics", "--repeats", "5", "--workers", "8", "--set", "statistics.precision=fp32"), 80),
)


def measure(options: Options) -> dict[str, Any]:
    """The last lines of all rows; their files are written to ``--out``."""
    console = Console(stderr=options.json_only)
    begin, rows, missing = time.monotonic(), list[dict[str, Any]](), list[dict[str, str]]()
    for arguments, longest in ROWS:
        left = options.seconds - (time.monotonic() - begin)
        name = " ".join(arguments)
        if left < 20:
            missing.append({"row": name, "why": "no time was left"})
            continue
        command = [
            sys.executable, "-m", "benchmarks", *arguments, "--size", options.size, "--device", str(options.device),
            "--out", str(options.out or ROOT / "benchmarks" / "results"),
        ]  # fmt: skip
        console.print(f"[{time.monotonic() - begin:.0f} s] {name}")
        found, why = _row(command, min(left, longest))
        if found is None:
            missing.append({"row": name, "why": why})
            console.print(f"  no result: {why}")
        else:
            rows.append(found)
            console.print(f"  ratio {found['ratio']}, {found['rate']['product']:,.0f} {found['unit']}")
    return {"rows": rows, "missing": missing, "seconds": round(time.monotonic() - begin, 1)}


def _row(command: list[str], seconds: float) -> tuple[dict[str, Any] | None, str]:
    """The JSON object of one row, or why there is none."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None, f"it took more than {seconds:.0f} s"
    try:
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), ""
    except (IndexError, ValueError):
        pass
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return None, said[-1] if said else f"it ended with {done.returncode}"
