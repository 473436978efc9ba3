"""What a machine offers to runs and to the dashboard, and what would keep either from working: facts, then findings.

The facts are plain data, as ``wmdd-tui doctor --json`` prints them; ``findings`` judges them and reads nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from engine import rundir
from engine.devices import gpus
from engine.errors import EngineError
from wmdd_tui.quantities import size
from wmdd_tui.store.launch import ask_engine

#: The dashboard's smallest comfortable terminal, and the room under which a run may not fit.
COLUMNS, ROWS, LITTLE_ROOM = 80, 24, 1 << 30
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``remedy`` says what to do where it is no "ok"."""

    name: str
    state: State
    value: str
    remedy: str = ""


def gather() -> dict[str, Any]:
    """Facts of this machine, terminal and installation; takes the seconds that PyTorch takes to be imported."""
    home = rundir.home()
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    memory, terminal = psutil.virtual_memory(), shutil.get_terminal_size()
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "home": str(home),
        "home_writable": _writable(existing),
        "disk_free": shutil.disk_usage(existing).free,
        "memory": {"available": memory.available, "total": memory.total},
        "data": os.environ.get("WMDD_DATA", ""),
        "terminal": f"{terminal.columns}x{terminal.lines}",
        "is_tty": sys.stdout.isatty(),
        "colour": os.environ.get("COLORTERM") or os.environ.get("TERM", ""),
        "encoding": sys.stdout.encoding or "",
        "timm": importlib.util.find_spec("timm") is not None,
        "driver_gpus": [gpu.name for gpu in gpus()],
    }
    try:
        facts["engine"] = ask_engine("doctor")
    except EngineError as error:
        facts["engine"] = {"problem": str(error)}
    return facts


def _writable(folder: Path) -> bool:
    """By trying: for root every folder looks writable."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def findings(facts: Mapping[str, Any]) -> list[Finding]:
    """What the facts mean for a run and for the dashboard, the engine first."""
    engine = facts["engine"]
    found = [Finding("python", "ok", f"{facts['python']}, {facts['platform']}")]
    if "problem" in engine:
        found.append(Finding("engine", "problem", engine["problem"], "install the package anew: pip install wmdd-tui"))
    else:
        found += _engine(engine, facts["driver_gpus"])
    memory = facts["memory"]
    found.append(Finding("memory", "ok", f"{size(memory['available'])} of {size(memory['total'])} free"))
    return [*found, _home(facts), _data(facts["data"]), *_terminal(facts), _timm(facts["timm"])]


def _engine(engine: Mapping[str, Any], driver_gpus: list[str]) -> Iterator[Finding]:
    versions, built = engine["versions"], engine["cuda_build"]
    torch = f"{versions['torch']}, torchvision {versions['torchvision']}"
    yield Finding("PyTorch", "ok", torch + (f", for CUDA {built}" if built else ", for CPUs"))
    for number, card in enumerate(engine["devices"]):
        yield Finding(f"GPU {number}", "ok", f"{card['name']}, {size(card['memory'])}: run.device = 'cuda:{number}'")
    if not engine["devices"]:
        if driver_gpus:
            wrong = f"the driver sees {len(driver_gpus)} ({driver_gpus[0]}), PyTorch none"
            hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
            why = f"CUDA_VISIBLE_DEVICES is '{hidden}'" if hidden is not None else "its build or the driver is too old"
            yield Finding("GPU", "problem", wrong, f"{why}; nvidia-smi names the CUDA version the driver can do")
        else:
            yield Finding("GPU", "note", "none", "runs are computed on the processor: hours where a GPU takes minutes")
    threads = engine["threads"]
    yield Finding("processor", "ok", f"{threads} thread{'s' * (threads != 1)}")
    if engine["bf16"]:
        yield Finding("precision", "ok", "networks are computed in bf16")
    else:
        yield Finding("precision", "ok", "networks are computed in fp32: no instructions for bf16 here")
    lacking = engine["compiling"]
    if lacking:
        yield Finding("compiler", "note", lacking, "steps are not compiled; results are the same, and take longer")
    else:
        yield Finding("compiler", "ok", "steps can be compiled")


def _home(facts: Mapping[str, Any]) -> Finding:
    value = f"{facts['home']}, {size(facts['disk_free'])} free"
    if not facts["home_writable"]:
        return Finding("runs", "problem", f"{facts['home']} cannot be written", "set WMDD_HOME to a folder of yours")
    if facts["disk_free"] < LITTLE_ROOM:
        return Finding("runs", "note", value, "free some space, or set WMDD_HOME to a larger disk")
    return Finding("runs", "ok", value)


def _data(named: str) -> Finding:
    if not named:
        return Finding(
            "data", "note", "WMDD_DATA is not set", "set it to the folder of your data sets, or give data.path"
        )
    if not Path(named).expanduser().is_dir():
        return Finding("data", "problem", f"WMDD_DATA = {named} is no folder", "correct it, or unset it")
    return Finding("data", "ok", named)


def _terminal(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if not facts["is_tty"]:
        yield Finding(
            "terminal", "note", "this is none", "the dashboard needs one; `wmdd-tui watch` shows a run without"
        )
        return
    columns, rows = (int(number) for number in facts["terminal"].split("x"))
    value = f"{facts['terminal']}, {facts['colour'] or 'no colours named'}, {facts['encoding']}"
    if columns < COLUMNS or rows < ROWS:
        yield Finding("terminal", "note", value, f"smaller than {COLUMNS}x{ROWS}: the dashboard leaves things out")
    elif "utf" not in facts["encoding"].lower():
        yield Finding("terminal", "note", value, "not UTF-8: open the dashboard with `wmdd-tui --ascii`")
    else:
        yield Finding("terminal", "ok", value)


def _timm(there: bool) -> Finding:
    if there:
        return Finding("timm", "ok", "vision transformers and timm's own names as students")
    return Finding("timm", "note", "not installed", "for vision transformers: pip install 'wmdd-tui[timm]'")
