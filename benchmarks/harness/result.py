"""What a measurement leaves: a table for people, one JSON line for programs, a file whose name is its provenance."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness.options import Options

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = 1
PACKAGES = ("torch", "torchvision", "numpy", "POT", "scikit-learn")


def completed(options: Options, load_before: float, figures: dict[str, Any]) -> dict[str, Any]:
    """The whole JSON object of a measurement."""
    return {
        "benchmark": options.stage,
        "schema": SCHEMA,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "commit": commit(),
        "device": device_facts(options.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "tf32": {
            "convolutions": bool(torch.backends.cudnn.allow_tf32),
            "products": bool(torch.backends.cuda.matmul.allow_tf32),
        },
        "configuration": options.configuration(),
        **figures,
        "load_1min": [round(load_before, 2), round(os.getloadavg()[0], 2)],
    }


def device_facts(device: torch.device) -> dict[str, object]:
    """Kind and name of the device, memory of a GPU in bytes, cores of the host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        return {"kind": "cuda", "name": facts.name, "memory": facts.total_memory, "cores": cores}
    return {"kind": "cpu", "name": _processor(), "cores": cores}


def versions() -> dict[str, str]:
    """Versions of what computes."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "?"
    found["torch"] = torch.__version__  # with the build, which the package's own version leaves out
    if torch.cuda.is_available():
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return found


def commit() -> str:
    """The checkout's commit, "-changed" behind it where the code differs, "unknown" outside of one."""
    try:
        name = _git("rev-parse", "--short=10", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", "engine", "benchmarks", ":!benchmarks/LOG.md"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}-changed" if changed else name


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def file_name(result: dict[str, Any]) -> str:
    """benchmark, what was measured, device, torch, date, commit."""
    what = result["configuration"]
    device = result["device"]
    size = f"{what['arch']}-{what['resolution']}px-b{what['batch']}"
    if result["benchmark"] == "barycenter":
        drawn = "real" if "features" in what else f"{what['images']}x{what['dims']}"
        size = f"{what['classes']}x{drawn}-k{what['ipc']}"
    elif result["benchmark"] not in ("recover", "statistics", "relabel", "train", "squeeze", "telemetry"):
        size = "-".join([what["size"], *what.get("only", ())])
    name = "cpu" if device["kind"] == "cpu" else device["name"].lower().replace("nvidia", "").strip()
    source = "-jpeg" if what.get("source") == "jpeg" else ""
    changed = "".join(f"-{setting.partition('.')[2]}" for setting in what["set"])
    parts = (
        result["benchmark"],
        size + source + changed.replace("=", ""),
        f"{name}-{result['threads']}t" if device["kind"] == "cpu" else name,
        f"torch{result['versions']['torch'].partition('+')[0]}",
        result["date"][:16].replace("-", "").replace(":", "").replace("Z", ""),
        result["commit"],
    )
    kept = "_".join(str(part) for part in parts)
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in kept) + ".json"


def table(result: dict[str, Any]) -> Table:
    """The figures of a comparison for people."""
    unit = result["unit"]
    title = f"{result['benchmark']} on {result['device']['name']}, {result['threads']} CPU threads"
    shown = Table(title=title, title_justify="left")
    for column in ("", "median s", "min", "max", "n", unit, "peak MB"):
        shown.add_column(column, justify="left" if not column else "right")
    for side in ("baseline", "product"):
        seconds = result["seconds"][side]
        peak = (result.get("peak_bytes") or {}).get(side)
        shown.add_row(
            side,
            *(f"{seconds[name]:.4g}" for name in ("median", "min", "max")),
            str(seconds["n"]),
            f"{result['rate'][side]:,.4g}",
            "" if peak is None else f"{peak / 1e6:,.1f}",
        )
    low, high = result["ratio_range"]
    shown.caption = f"ratio {result['ratio']:.2f} (neighbours {low:.2f} to {high:.2f})"
    if "target" in result:
        shown.caption += f"; target: {result['target']}"
    return shown


def operations(rows: list[dict[str, Any]], title: str) -> Table:
    """Where the time goes, for people."""
    shown = Table(title=title, title_justify="left")
    for column in ("operation", "share", "seconds", "calls"):
        shown.add_column(column, justify="left" if column == "operation" else "right")
    for row in rows:
        shown.add_row(row["operation"], f"{100 * row['share']:.1f} %", f"{row['seconds']:.4f}", str(row["calls"]))
    return shown


def report(result: dict[str, Any], options: Options, console: Console) -> None:
    """Print the table where there is one, write the file where asked, and end with the JSON line."""
    if not options.json_only:
        if "ratio_range" in result:
            console.print(table(result))
        for side, rows in result.get("where_time_goes", {}).items():
            console.print(operations(rows, f"where the time of the {side} goes"))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / file_name(result)
        path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
        if not options.json_only:
            console.print(f"written: {path}", soft_wrap=True)
    print(json.dumps(result, ensure_ascii=False), flush=True)
