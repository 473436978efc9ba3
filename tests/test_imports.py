"""The app never imports torch; the engine never imports textual, rich or typer."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "ot", "sklearn")
#: What only charts, exports and measurements need; the first screen and short commands must not wait for it.
SLOW = (*HEAVY, "numpy", "scipy", "matplotlib", "pyarrow", "pandas")
SCREEN = ("textual", "rich", "typer")


def imported(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["wmdd_tui.cli", "wmdd_tui.store.runs", "wmdd_tui.store.reader"])
def test_the_cockpit_imports_no_torch(module: str) -> None:
    assert not imported(f"import {module}").intersection(HEAVY)


def test_commands_wait_for_nothing_slow() -> None:
    assert not imported("from wmdd_tui.cli.commands import app").intersection(SLOW)


def test_the_first_screen_waits_for_nothing_slow() -> None:
    assert not imported("from wmdd_tui.app import WmddApp").intersection({*SLOW, "PIL", "pydantic", "typer"})


def test_the_monitor_imports_neither_what_measures_nor_what_draws_files() -> None:
    found = imported("import wmdd_tui.cli.opening, wmdd_tui.screens.monitor")
    assert not found.intersection({*SLOW, "safetensors", "pydantic"} - {"numpy"})


def test_the_torch_free_half_of_the_engine() -> None:
    modules = ", ".join(
        f"engine.{m}" for m in ("config", "presets", "catalog", "events", "rundir", "errors", "artifacts")
    )
    assert not imported(f"import {modules}").intersection({*HEAVY, *SCREEN})


def test_the_engine_imports_no_screen() -> None:
    assert not imported("import engine.session, engine.check").intersection({"textual", "typer"})
