"""``python -m engine RUN_DIR``: run the pipeline of a run directory. Also ``check``, ``doctor`` and ``prepare``.

Errors become an ``end`` event and an exit code: 0 finished, 1 failed, 2 bad input, 3 stopped. This is the one
place where they do.
"""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from engine import events, faults, hooks, queueing, rundir
from engine.artifacts import clear_abandoned
from engine.control import Control
from engine.errors import EngineError, Stopped

RESERVE_BYTES = 64 << 10
USAGE = "usage: python -m engine RUN_DIR | check | doctor | prepare NAME SOURCE TARGET"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["check"]:
        from engine.check import check_stdin

        return check_stdin()
    if arguments[:1] == ["doctor"]:
        from engine.check import doctor

        return doctor()
    if arguments[:1] == ["prepare"] and len(arguments) == 4:
        return _prepare(*arguments[1:])
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    run = rundir.RunDir(Path(arguments[0]).resolve())
    if not run.config_file.is_file():
        print(f"{run.path} is no run directory: it holds no config.toml\n  {USAGE}", file=sys.stderr)
        return 2
    control = Control(run)
    control.install()
    try:
        with rundir.hold_lock(run, control.stop_asked) as locked:
            return _run(run, control, locked)
    except (EngineError, OSError) as error:
        named = faults.named(error, run) or error
        print(named, file=sys.stderr)
        return named.exit_code if isinstance(named, EngineError) else 1


def _prepare(name: str, source: str, target: str) -> int:
    from engine.data.prepare import prepare

    def progress(done: int, total: int) -> None:
        if done % 5000 == 0 or done == total:
            print(f"{done}/{total}", file=sys.stderr, flush=True)

    try:
        facts = prepare(name, Path(source).expanduser(), Path(target).expanduser(), progress)
    except EngineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(facts)
    return 0


def _run(run: rundir.RunDir, control: Control, locked: bool) -> int:
    """Run the pipeline under the lock; every way out leaves an ``end`` event."""
    started = time.monotonic()
    rundir.clear_partials(run.path)
    clear_abandoned()
    writer = events.Writer(run.events_file)
    reserve = run.path / ".reserve"
    try:
        # Room for the last events on a disk that becomes full; given up right before they are written.
        rundir.write_whole(reserve, bytes(RESERVE_BYTES))
        rundir.write_process(run, {})
        if run.events_file.stat().st_size:
            # The end of the process before is not the last word any more, though torch takes seconds to import.
            writer.write(events.Beat())
        if not locked:
            writer.write(events.Log(message="no file lock here; liveness is by heartbeat", level="warning"))
        event, code = _outcome(run, writer, control)
    except OSError as error:
        event, code = _end_of(error, run)
    with suppress(OSError):
        reserve.unlink(missing_ok=True)
    event.seconds = round(time.monotonic() - started, 3)
    writer.write(event)
    _tell_end(run, event)
    writer.close()
    return code


def _tell_end(run: rundir.RunDir, event: events.End) -> None:
    """Execute ``run.on_end``. Its failure goes to console.log: the ``end`` stays the last event of the process."""
    try:
        config = run.config()
    except EngineError:
        return  # the end event says already what is wrong with it
    facts = hooks.facts_of(
        run, config, event.status, error=event.error, message=event.message, seconds=str(event.seconds)
    )
    hooks.call("on_end", config.run.on_end, facts, _to_console)


def _to_console(event: events.Event) -> None:
    if isinstance(event, events.Log):
        _say(event.message)


def _say(message: str) -> None:
    with suppress(OSError):  # console.log may lie on a full disk
        print(message, file=sys.stderr, flush=True)


def _outcome(run: rundir.RunDir, writer: events.Writer, control: Control) -> tuple[events.End, int]:
    try:
        with queueing.occupied(run, writer.write, control):
            from engine.session import work  # torch, which a waiting run does without

            work(run, writer.write, control)
    except Exception as error:
        return _end_of(error, run)
    return events.End(status="finished"), 0


def _end_of(error: Exception, run: rundir.RunDir) -> tuple[events.End, int]:
    """The ``end`` event and exit code of what was raised."""
    named = faults.named(error, run)
    if isinstance(named, Stopped):
        return events.End(status="stopped", message=named.message), named.exit_code
    if named is None:
        # A fault of ours: the traceback goes to console.log, one line to the event.
        _say("".join(traceback.format_exception(error)))
        return events.End(status="failed", error=type(error).__name__, message=str(error) or repr(error)), 1
    _say(str(named))
    end = events.End(status="failed", error=type(named).__name__, message=named.message, remedy=named.remedy)
    return end, named.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
