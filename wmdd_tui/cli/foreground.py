"""Watching a run from the command line: Rich progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from engine import events, rundir
from engine.distributed.supervising import ALONE, Nodes
from engine.rundir import RunDir
from wmdd_tui.store.launch import enqueue, launch
from wmdd_tui.store.reader import RunTail
from wmdd_tui.store.runs import read_report

POLL_SECONDS = 0.25
PLAIN_SECONDS = 5.0
SECOND_INTERRUPT_SECONDS = 3.0
CONSOLE_LINES = 6
EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 3}


class Display:
    """Shows events as they come; ``end`` is the last process's end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<11}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=console, disable=not self._live,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._printed = 0.0
        self._note = ""
        self.end: events.End | None = None

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: events.AnyEvent) -> None:
        if isinstance(event, events.Stage):
            self._stage(event)
        elif isinstance(event, events.Progress):
            self._advance(event)
        elif isinstance(event, events.Iters):
            self._note = f"loss {event.total[-1]} feature {event.feature[-1]} BN {event.bn[-1]}"
        elif isinstance(event, events.Metrics):
            self._note = f"loss {event.loss}" + (f" top-1 {event.top1:.2f} %" if event.top1 is not None else "")
            # A teacher as a whole, which no epoch is told of, has a line of the log.
            if event.top1 is not None and event.epochs and not self._live:
                who = f"{event.stage} {event.student}".strip()
                what = "epoch" if event.chunk is None else f"chunk {event.chunk + 1} iteration"
                self._line(f"{who} {what} {event.epoch}/{event.epochs}: {self._note}")
        elif isinstance(event, events.Log):
            self._line(event.message if event.level == "info" else f"{event.level}: {event.message}")
        elif isinstance(event, events.End):
            self.end = event

    def _stage(self, event: events.Stage) -> None:
        if event.what == "begin":
            self._note = ""
            if not self._live:
                self._line(f"{event.stage} …")
        else:
            cached = ", from the cache" if event.cached else ""
            self._line(f"{event.stage} done in {event.seconds:.1f} s{cached}")

    def _advance(self, event: events.Progress) -> None:
        note = event.note or self._note
        if self._live:
            if event.stage not in self._tasks:
                self._tasks[event.stage] = self._progress.add_task(event.stage, note="")
            self._progress.update(self._tasks[event.stage], completed=event.done, total=event.total, note=escape(note))
        elif time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            self._line(f"{event.stage} {event.done}/{event.total} {event.unit} {note}".rstrip())

    def _line(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)


class _Interrupts:
    """Ctrl-C and SIGTERM ask the run to stop, SIGUSR1 to checkpoint; a second Ctrl-C within 3 s ends it at once."""

    def __init__(self, run: RunDir, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._at = float("-inf")
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self._run.request("checkpoint-now")
            return
        now = time.monotonic()
        if number == signal.SIGINT and now - self._at < SECOND_INTERRUPT_SECONDS:
            rundir.kill(self._run)
            return
        self._at = now
        self._run.request("stop")
        self._say(f"stopping after this iteration; resume with: wmdd-tui resume {self._run.id}")


def start(run: RunDir, detach: bool, as_json: bool, queue: bool = False, nodes: Nodes = ALONE) -> int:
    """Launch the engine on a run directory, at once or behind what runs on its device; watch it unless detached.

    ``nodes`` says how many hosts do so. Returns the exit code. Raises EngineError.
    """
    tail = RunTail(run)
    while tail.poll():
        pass  # what an earlier process wrote is history
    process = enqueue(run) if queue else launch(run, nodes)
    if detach:
        answer = {"run_id": run.id, "run_dir": str(run.path), "state": "queued" if queue else "starting"}
        print(json.dumps(answer) if as_json else run.id)
        return 0
    return follow(run, tail, process, as_json)


def follow(run: RunDir, tail: RunTail, process: subprocess.Popen[bytes] | None, as_json: bool) -> int:
    """Show a run until it ends; returns its exit code. Without ``process`` the run was started elsewhere."""
    console = Console(stderr=as_json)
    console.print(f"run {escape(run.id)} in {escape(str(run.path))}", highlight=False, soft_wrap=True)
    with (
        Display(console) as display,
        _Interrupts(run, lambda text: console.print(escape(text), soft_wrap=True)),
    ):
        while True:
            gone = process.poll() is not None if process else rundir.state_of(run) not in rundir.ALIVE
            for event in tail.poll():
                display.show(event)
            if gone or (display.end is not None and process is None):
                for event in tail.poll():
                    display.show(event)
                break
            time.sleep(POLL_SECONDS)
    code = process.returncode if process else EXIT_CODES.get(display.end.status if display.end else "", 1)
    return conclude(run, display.end, code, console, as_json)


def _last_lines(run: RunDir) -> str:
    """The last lines the engine printed, indented."""
    try:
        lines = run.console_file.read_text(encoding="utf-8", errors="replace").splitlines()[-CONSOLE_LINES:]
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines or ["(nothing)"])


def conclude(run: RunDir, end: events.End | None, code: int, console: Console, as_json: bool) -> int:
    """Say how the run ended, where its images are, and how to go on."""
    report = read_report(run)
    state = end.status if end else rundir.state_of(run)
    if end is None:
        code = code if code > 0 else 1
        console.print(
            f"the engine ended without a last event; the end of {escape(str(run.console_file))}:\n"
            f"{escape(_last_lines(run))}\nresume with: wmdd-tui resume {run.id}",
            soft_wrap=True,
        )
    elif state == "failed":
        console.print(escape(f"failed: {end.message}" + (f"\n  {end.remedy}" if end.remedy else "")), soft_wrap=True)
    elif state == "stopped":
        console.print(f"stopped; resume with: wmdd-tui resume {run.id}", soft_wrap=True)
    else:
        _say_result(run, report, console)
    if as_json:
        answer: dict[str, Any] = {"run_id": run.id, "run_dir": str(run.path), "state": state, **report}
        if end is not None and end.error:
            answer |= {"error": end.error, "message": end.message, "remedy": end.remedy}
        print(json.dumps(answer), flush=True)
    return code


def _say_result(run: RunDir, report: dict[str, Any], console: Console) -> None:
    if report.get("student_top1") is not None:
        known = report.get("teacher_top1")
        teacher = f", teacher {known:.2f} %" if known is not None else ""
        console.print(
            f"student top-1 {report['student_top1']:.2f} % (best {report['best_top1']:.2f} % at epoch "
            f"{report['best_epoch']}){teacher}, {report['seconds']:.0f} s",
            highlight=False,
        )
    if report.get("images"):
        sheet = run.report / "contact_sheet.png"
        console.print(f"images: {escape(report['images'])}\nat a glance: {escape(str(sheet))}", soft_wrap=True)


def fail(message: str) -> int:
    """A plain message on stderr and the exit code of bad usage."""
    print(f"wmdd-tui: {message}", file=sys.stderr)
    return 2
