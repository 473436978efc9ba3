"""Engine processes that start in a moment: one process has loaded torch, and every engine is a fork of it.

Only libraries are shared: the fork imports the engine afresh and runs ``python -m engine RUN_DIR``, in a session of its
own, its output in ``console.log``, as ``wmdd_tui.store.launch`` starts it. Before that it may be *injured*
(``injuries.py``): given a full disk, a device without memory, a clock that jumps.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
PATIENCE = 600.0
LOOK_SECONDS = 0.005
Injury = tuple[str, dict[str, Any]]


class Engine:
    """One engine process. Exit codes as ``subprocess`` has them: negative for a signal."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self._descriptor = os.pidfd_open(pid)
        self.pid = pid
        self.code: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def _ended(self, seconds: float) -> int | None:
        if self.code is None and select.select([self._descriptor], [], [], seconds)[0]:
            self.code = int(self._nursery.ask({"reap": self.pid}))
            os.close(self._descriptor)
        return self.code

    def wait(self, seconds: float = PATIENCE) -> int:
        code = self._ended(seconds)
        assert code is not None, f"the engine did not end within {seconds} s"
        return code

    def signal(self, number: int) -> None:
        if self.code is None:
            signal.pidfd_send_signal(self._descriptor, number)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds or the engine has ended."""
        deadline = time.monotonic() + PATIENCE
        while self.code is None and not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain"
            self._ended(LOOK_SECONDS)

    def pause_for(self, seconds: float) -> None:
        """Let it work for a while, or until it ends."""
        self._ended(seconds)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()


class Nursery:
    """Starts engines. A context manager: on leaving, everything it started is gone."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._engines: list[Engine] = []
        assert self._answer() == "ready"

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._engines:
            if engine.poll() is None:
                engine.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that engines are forked from has died"
        return json.loads(line)

    def ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def start(self, path: Path, injuries: Sequence[Injury] = (), **environ: str) -> Engine:
        """An engine on a run directory, with ``$WMDD_HOME`` as it is here and further variables."""
        order = {
            "run": str(path), "home": os.environ["WMDD_HOME"], "injuries": list(injuries), "environ": environ,
        }  # fmt: skip
        engine = Engine(self, self.ask(order))
        self._engines.append(engine)
        return engine


def _live(order: dict[str, Any]) -> None:
    """The fork: become an engine."""
    os.setsid()
    try:
        console = os.open(Path(order["run"]) / "console.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError:  # a read-only disk
        console = os.open(os.devnull, os.O_WRONLY)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (console, 1), (console, 2)):
        os.dup2(descriptor, target)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, 1) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    os.environ |= {"WMDD_HOME": order["home"], **order["environ"]}
    code: object = 1
    try:
        import injuries

        for name, arguments in order["injuries"]:
            getattr(injuries, name)(**arguments)
        sys.argv = ["engine", order["run"]]
        runpy.run_module("engine", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 1)


def _serve() -> None:
    """Read orders from stdin, one a line, and answer each with one line."""
    import joblib
    import msgspec
    import ot
    import PIL.Image
    import psutil
    import pyarrow.parquet
    import pydantic
    import safetensors.torch
    import sklearn.cluster
    import sklearn.datasets
    import torch
    import torchvision

    assert all((joblib, msgspec, ot, PIL, psutil, pyarrow, pydantic, safetensors, sklearn, torch, torchvision))
    sys.path.insert(0, str(HERE))
    print(json.dumps("ready"), flush=True)
    alive = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            _, status = os.waitpid(order["reap"], 0)
            alive.discard(order["reap"])
            print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
            continue
        pid = os.fork()
        if not pid:
            _live(order)
        alive.add(pid)
        print(json.dumps(pid), flush=True)
    for pid in alive:  # whoever asked is gone without leaving
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _serve()
