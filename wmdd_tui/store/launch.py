"""Starting the engine: a process of its own session, which a closed terminal does not disturb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from engine import queueing
from engine.distributed.supervising import ALONE, Nodes
from engine.errors import EngineError, InputError, RunDirError
from engine.rundir import RunDir

if TYPE_CHECKING:
    from engine.config import RunConfig

CHECK_SECONDS = 120.0


def launch(run: RunDir, nodes: Nodes = ALONE) -> subprocess.Popen[bytes]:
    """Start ``python -m engine RUN_DIR`` detached, its output in ``console.log``. Raises RunDirError.

    ``nodes`` says how many hosts start it, and which of them this is.
    """
    try:
        with run.console_file.open("ab") as console:
            return subprocess.Popen(
                [sys.executable, "-m", "engine", str(run.path), *nodes.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
    except OSError as error:
        raise RunDirError(f"cannot start the engine for {run.path}: {error}") from None


def enqueue(run: RunDir) -> subprocess.Popen[bytes]:
    """Launch a run that waits for its device: its engine starts now, and torch when its turn comes.

    Raises EngineError.
    """
    queueing.submit(run)
    try:
        return launch(run)
    except EngineError:
        queueing.withdraw(run)
        raise


def ask_engine(question: str, text: str = "") -> dict[str, Any]:
    """One torch-backed answer from ``python -m engine QUESTION``: its last line of JSON. Raises InputError."""
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "engine", question],
            input=text, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False,
        )  # fmt: skip
        value = json.loads((answer.stdout.strip().splitlines() or [""])[-1])
    except subprocess.TimeoutExpired:
        raise InputError(f"the engine did not answer '{question}' within {CHECK_SECONDS:.0f} s") from None
    except ValueError:
        last = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        raise InputError(f"the engine could not answer '{question}': {last}", "see `wmdd-tui doctor`") from None
    return dict(value)


def check(config: RunConfig) -> dict[str, Any]:
    """Facts of a configuration's data, teacher and device, or ``ok`` false with ``error`` and ``remedy``."""
    from engine.config import to_toml  # and pydantic, which a list of runs need not pay

    return ask_engine("check", to_toml(config))
