"""``python -m engine RUN_DIR``: run the pipeline of a run directory. Also ``check``, ``doctor`` and ``prepare``.

Alone, as one rank of a group that ``torchrun`` or ``srun`` has started, or, where ``run.devices`` names several, as the
supervisor that starts such a group. Errors become an ``end`` event and an exit code: 0 finished, 1 failed, 2 bad input,
3 stopped. This is the one place where they do.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from engine import events, faults, hooks, queueing, rundir
from engine.artifacts import clear_abandoned
from engine.control import Control
from engine.distributed import ranks, supervising
from engine.distributed.control import GroupControl, worth_another_try
from engine.errors import EngineError, Stopped

RESERVE_BYTES = 64 << 10
#: Exit code of a rank that torchrun shall start again, along with the others.
START_AGAIN = 75
USAGE = "usage: python -m engine RUN_DIR | check | doctor | prepare NAME SOURCE TARGET | fkd RUN IMAGES TARGET"


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["check"]:
        from engine.check import check_stdin

        return check_stdin()
    if arguments[:1] == ["doctor"]:
        from engine.check import doctor

        return doctor()
    if arguments[:1] == ["fkd"] and len(arguments) in (4, 5):
        from engine.interchange import fkd_writing

        return fkd_writing.main(*arguments[1:])
    if arguments[:1] == ["prepare"] and len(arguments) == 4:
        return _prepare(*arguments[1:])
    if not arguments or arguments[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        return 2
    run = rundir.RunDir(Path(arguments[0]).resolve())
    if not run.config_file.is_file():
        print(f"{run.path} is no run directory: it holds no config.toml\n  {USAGE}", file=sys.stderr)
        return 2
    try:
        nodes = supervising.read_nodes(arguments[1:])
        rank = ranks.here(os.environ)
        if rank.count > 1:
            return _rank(run, rank)
        local_ranks = _ranks_to_start(run, nodes)
        if local_ranks > 1 or nodes.count > 1:
            return _supervise(run, nodes, local_ranks)
        control = Control(run)
        control.install()
        with rundir.hold_lock(run, control.stop_asked) as locked:
            return _run(run, control, locked, _alone)
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


def _ranks_to_start(run: rundir.RunDir, nodes: supervising.Nodes) -> int:
    """How many ranks this host shall have; a configuration that cannot be used is said by the engine itself."""
    try:
        return supervising.wanted_ranks(run, nodes)
    except EngineError:
        return 1


Ending = tuple[events.End | None, int]
Work = Callable[[rundir.RunDir, events.Writer, Control], Ending]


def _run(run: rundir.RunDir, control: Control, locked: bool, work: Work, announce: bool = True) -> int:
    """Do the work under the lock; every way out leaves an ``end`` event, unless a supervisor or restart is to.

    Without ``announce`` the process is a rank whose supervisor ``proc.json`` tells of.
    """
    started = time.monotonic()
    rundir.clear_partials(run.path)
    clear_abandoned()
    writer = events.Writer(run.events_file)
    reserve = run.path / ".reserve"
    try:
        # Room for the last events on a disk that becomes full; given up right before they are written.
        rundir.write_whole(reserve, bytes(RESERVE_BYTES))
        if announce:
            rundir.write_process(run, {})
        if run.events_file.stat().st_size:
            # The end of the process before is not the last word any more, though torch takes seconds to import.
            writer.write(events.Beat())
        if not locked:
            writer.write(events.Log(message="no file lock here; liveness is by heartbeat", level="warning"))
        event, code = work(run, writer, control)
    except OSError as error:
        event, code = _end_of(error, run)
    with suppress(OSError):
        reserve.unlink(missing_ok=True)
    if event is not None:
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


def _alone(run: rundir.RunDir, writer: events.Writer, control: Control) -> Ending:
    """The whole run in this process."""
    try:
        with queueing.occupied(run, writer.write, control):
            device = ranks.own_device(run.config().run, ranks.ALONE, os.environ)
            from engine.session import work  # torch, which a waiting run does without

            work(run, writer.write, control, device)
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


# --- groups of ranks --------------------------------------------------------------------------------------


def _supervise(run: rundir.RunDir, nodes: supervising.Nodes, local_ranks: int) -> int:
    """Start the ranks of this host; on the first host also be the engine that others see."""
    if nodes.node_rank:
        return supervising.supervise(run, nodes, local_ranks, lambda: False)
    control = Control(run)
    control.install()

    def start(run: rundir.RunDir, writer: events.Writer, control: Control) -> Ending:
        try:
            with queueing.occupied(run, writer.write, control):
                code = supervising.supervise(run, nodes, local_ranks, control.stop_asked)
        except Exception as error:
            return _end_of(error, run)
        return _end_of_group(run, code)

    with rundir.hold_lock(run, control.stop_asked) as locked:
        return _run(run, control, locked, start)


def _end_of_group(run: rundir.RunDir, code: int) -> Ending:
    """What the first rank said last; its ``end`` stands already unless it could not write one."""
    last = rundir.last_event(run.events_file)
    if isinstance(last, events.End):
        return None, supervising.exit_code_of(last)
    if code == supervising.EXIT_CODES["stopped"]:
        return events.End(status="stopped", message="stopped before its ranks had started"), code
    return supervising.lost(code), 1


def _rank(run: rundir.RunDir, rank: ranks.Rank) -> int:
    """Be one rank of a group. Raises EngineError, OSError."""
    if rank.elastic:
        ranks.end_with_parent(os.environ.get(ranks.SUPERVISED, ""))
    last = rundir.last_event(run.events_file) if rank.attempt else None
    if isinstance(last, events.End) and last.error != "RankLost":
        return supervising.exit_code_of(last)  # torchrun starts again what has ended as it was meant to
    control = GroupControl(run, rank)
    control.install()

    def work(run: rundir.RunDir, writer: events.Writer, control: Control) -> Ending:
        assert isinstance(control, GroupControl)
        return _rank_ending(run, rank, writer, control)

    if not rank.leads:
        writer = events.Writer(run.rank_events_file(rank.number), rank.number)
        event, code = work(run, writer, control)
        if event is not None:
            writer.write(event)
        writer.close()
        return code
    if rank.supervised:
        return _run(run, control, True, work, announce=False)
    with rundir.hold_lock(run, control.stop_asked) as locked:
        return _run(run, control, locked, work)


def _rank_ending(run: rundir.RunDir, rank: ranks.Rank, writer: events.Writer, control: GroupControl) -> Ending:
    """Do a rank's share, and decide how it ends: torchrun starts the group again unless all ranks end with 0."""
    try:
        device = ranks.own_device(run.config().run, rank, os.environ)
        from engine.session import work

        work(run, writer.write, control, device, rank)
    except Exception as error:
        named = faults.named(error, run)
        failure, lost = control.failure, named is not None and worth_another_try(named, rank)
        if failure is None and (lost or (control.told_to_end and isinstance(named, Stopped) and rank.restarts > 0)):
            told = named.message if lost and named else "ends with the group; its checkpoint is kept"
            writer.write(events.Log(message=f"rank {rank.number}: {told}", level="warning"))
            return None, START_AGAIN
        event, code = _end_of(error, run)
        if failure is not None:
            message = failure.message if failure.rank == rank.number else f"rank {failure.rank}: {failure.message}"
            event = events.End(status="failed", error=failure.error, message=message, remedy=failure.remedy)
            code = failure.exit_code
        return event, 0 if rank.supervised or (rank.elastic and event.status == "stopped") else code
    return events.End(status="finished"), 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
