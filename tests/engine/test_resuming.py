"""A run that is resumed is seen to be at work from its first moment."""

from __future__ import annotations

import pytest

from engine import __main__ as engine_main
from engine import events, presets, rundir
from engine.control import Control


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_the_end_of_the_process_before_is_not_the_last_word(status: str) -> None:
    run = rundir.create(presets.get("digits"))
    writer = events.Writer(run.events_file)
    writer.write(events.End(status=status))
    writer.close()
    assert rundir.state_of(run) == status
    seen: list[str] = []

    def outcome(run: rundir.RunDir, *_: object) -> tuple[events.End, int]:
        seen.append(rundir.state_of(run))
        return events.End(status="finished"), 0

    with rundir.hold_lock(run) as locked:
        assert engine_main._run(run, Control(run), locked, outcome) == 0
    assert seen == ["running"]
    assert rundir.state_of(run) == "finished"


def test_a_new_run_is_starting_until_it_says_hello() -> None:
    run = rundir.create(presets.get("digits"))
    seen: list[str] = []

    def outcome(run: rundir.RunDir, *_: object) -> tuple[events.End, int]:
        seen.append(rundir.state_of(run))
        return events.End(status="finished"), 0

    with rundir.hold_lock(run) as locked:
        engine_main._run(run, Control(run), locked, outcome)
    assert seen == ["starting"]
