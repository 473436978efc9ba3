"""The dashboard's measurements: each script beside this package, one after the other, and its last line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from benchmarks.harness.options import Options
from benchmarks.harness.result import ROOT
from engine.errors import RunFailure

SCRIPTS = ("app_start", "app_latency", "app_open", "app_traffic")
PATIENCE = 600


def measure(options: Options) -> dict[str, Any]:
    """The JSON object of every script. Raises RunFailure where one fails."""
    found: dict[str, Any] = {}
    for name in SCRIPTS:
        command = [sys.executable, f"benchmarks/{name}.py"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if not options.json_only:
            print(done.stdout, end="")
        try:
            found[name] = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            last = (done.stderr.splitlines() or ["nothing was said"])[-1]
            raise RunFailure(
                f"{name} ended with {done.returncode}: {last}", f"try python benchmarks/{name}.py"
            ) from None
    return {"scripts": found}
