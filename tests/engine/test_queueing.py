"""The queue: whose turn it is, as a table; tickets on disk; devices by name."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from engine import devices, presets, queueing, rundir
from engine.config import override
from engine.control import Control
from engine.devices import Gpu
from engine.errors import RunDirError, Stopped
from engine.events import Beat, Event, Log
from engine.queueing import Ticket, is_dead, moved, next_run, places_of


def ticket(run_id: str, order: int, doing: str) -> Ticket:
    return msgspec.convert(
        {"run_id": run_id, "path": f"/runs/{run_id}", "order": order, "doing": doing, "since": 100.0}, Ticket
    )


@pytest.mark.parametrize(
    ("tickets", "turn"),
    [
        ([], ""),
        ([("a", 1, "waiting")], "a"),
        ([("a", 2, "waiting"), ("b", 1, "waiting")], "b"),
        ([("a", 1, "waiting"), ("b", 0, "running")], ""),
        ([("a", 1, "held"), ("b", 2, "waiting")], "b"),
        ([("a", 1, "held")], ""),
        ([("a", 1, "submitted"), ("b", 2, "waiting")], ""),
        ([("b", 1, "waiting"), ("a", 1, "waiting")], "a"),
        ([("a", 0, "running"), ("b", 0, "running"), ("c", 1, "waiting")], ""),
    ],
    ids=[
        "empty",
        "alone",
        "order",
        "busy",
        "held is passed",
        "all held",
        "arrival is awaited",
        "tie by id",
        "two busy",
    ],
)
def test_whose_turn_it_is(tickets: list[tuple[str, int, str]], turn: str) -> None:
    assert next_run([ticket(*one) for one in tickets]) == turn


@pytest.mark.parametrize(
    ("doing", "alive", "age", "dead"),
    [
        ("running", True, 1e6, False),
        ("running", False, 0.0, True),
        ("waiting", False, 0.0, True),
        ("held", False, 0.0, True),
        ("submitted", False, 5.0, False),
        ("submitted", False, 500.0, True),
        ("submitted", False, -500.0, True),
        ("submitted", True, 500.0, False),
    ],
)
def test_liveness_comes_from_the_lock(doing: str, alive: bool, age: float, dead: bool) -> None:
    assert is_dead(ticket("a", 1, doing), alive, 100.0 + age) is dead


@pytest.mark.parametrize(
    ("position", "line"),
    [(1, "cabd"), (2, "acbd"), (3, "abcd"), (4, "abdc"), (99, "abdc"), (queueing.END, "abdc"), (-3, "cabd")],
)
def test_moving_in_the_line(position: int, line: str) -> None:
    assert "".join(moved("abcd", "c", position)) == line


def test_places_count_from_one_behind_what_runs() -> None:
    tickets = [ticket("a", 3, "waiting"), ticket("b", 0, "running"), ticket("c", 2, "held")]
    found = [(place.run_id, place.position) for place in places_of("cpu", tickets)]
    assert found == [("b", 0), ("c", 1), ("a", 2)]


# --- tickets on disk --------------------------------------------------------------------------------------


def a_run(name: str) -> rundir.RunDir:
    return rundir.create(override(presets.get("digits"), [f"name={name}", 'run.device="cpu"']))


def names() -> list[str]:
    return [place.run_id.rsplit("-", 1)[1] for place in queueing.places()]


def test_submitted_runs_stand_in_order_and_move() -> None:
    one, two, three = (a_run(name) for name in ("one", "two", "three"))
    assert [queueing.submit(run).position for run in (one, two, three)] == [1, 2, 3]
    assert queueing.move(three, 1).position == 1
    assert names() == ["three", "one", "two"]
    assert queueing.move(three, queueing.END).position == 3
    assert queueing.submit(one).position == 3, "submitting again is going to the end"
    queueing.withdraw(two)
    assert names() == ["three", "one"]


def test_tickets_of_the_dead_and_damaged_ones_are_cleared() -> None:
    run = a_run("dead")
    queueing.submit(run)
    file = next(queueing.root().glob("cpu/*.json"))
    old = msgspec.json.decode(file.read_bytes(), type=Ticket)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(old, doing="running")))
    (file.parent / "rubbish.json").write_bytes(b"{")
    (file.parent / "no-path.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(old, path="a\0b")))
    assert queueing.places() == []
    assert list(file.parent.glob("*.json")) == []


def test_a_run_in_no_queue_cannot_be_moved_or_removed() -> None:
    run = a_run("idle")
    with pytest.raises(RunDirError, match="stands in no queue"):
        queueing.move(run, 1)
    with pytest.raises(RunDirError, match="stands in no queue"):
        queueing.remove(run)


def test_a_run_started_now_occupies_and_leaves() -> None:
    run, said = a_run("now"), list[Event]()
    with rundir.hold_lock(run):
        with queueing.occupied(run, said.append, Control(run)):
            place = queueing.place_of(run)
            assert place is not None
            assert (place.device, place.position, place.doing) == ("cpu", 0, "running")
            with pytest.raises(RunDirError, match="at work on cpu"):
                queueing.move(run, 1)
        assert queueing.place_of(run) is None
    assert said == []


def test_a_ticket_left_by_a_dead_process_does_not_make_the_next_one_wait() -> None:
    busy, run = a_run("busy"), a_run("again")
    queueing.submit(run)
    file = next(queueing.root().glob("cpu/*again.json"))
    old = msgspec.json.decode(file.read_bytes(), type=Ticket)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(old, doing="waiting")))
    with (
        rundir.hold_lock(busy), queueing.occupied(busy, lambda _: None, Control(busy)),
        rundir.hold_lock(run), queueing.occupied(run, lambda _: None, Control(run)),
    ):  # fmt: skip
        assert [place.position for place in queueing.places()] == [0, 0]


def test_a_waiting_run_stops_when_asked_and_clears_its_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, run, said = a_run("busy"), a_run("waits"), list[Event]()
    control = Control(run)
    queueing.submit(run)
    polls = 0

    def poll(_seconds: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 1:
            run.request("pause")
        elif polls == 2:
            run.request("unpause")
        else:
            queueing.remove(run)
        control._polled = 0.0

    monkeypatch.setattr(control, "wait", poll)
    with rundir.hold_lock(busy), queueing.occupied(busy, lambda _: None, Control(busy)), rundir.hold_lock(run):
        with pytest.raises(Stopped), queueing.occupied(run, said.append, control):
            pytest.fail("its turn cannot have come")
        assert names() == ["busy"]
    beats = [(beat.queued, beat.paused) for beat in said if isinstance(beat, Beat)]
    assert beats == [(True, False), (True, True), (True, False)]
    assert any(isinstance(event, Log) and "place 1 in the line" in event.message for event in said)


def test_an_unusable_queue_refuses_who_would_wait_but_not_who_runs_now(wmdd_home: Path) -> None:
    run, said = a_run("now"), list[Event]()
    (wmdd_home / "queue").write_text("a file where the folder should be")
    with pytest.raises(RunDirError, match="cannot be used"):
        queueing.submit(run)
    with rundir.hold_lock(run), queueing.occupied(run, said.append, Control(run)):
        pass
    assert any(isinstance(event, Log) and event.level == "warning" for event in said)


def test_a_cleared_folder_is_joined_again() -> None:
    run = a_run("joins")
    started = time.time()
    with rundir.hold_lock(run):
        assert queueing._take_turn(run, "cpu", held=True) is not None
        assert queueing._take_turn(run, "cpu", held=False) is None
        found = queueing.place_of(run)
    assert found is not None
    assert found.position == 0
    assert time.time() >= started


# --- devices ----------------------------------------------------------------------------------------------

CARDS = [Gpu(index, f"GPU-{index}abc", "card") for index in range(3)]


@pytest.mark.parametrize(
    ("mask", "seen"),
    [
        (None, [0, 1, 2]), ("2,0", [2, 0]), ("", []), ("-1", []), ("1,7,0", [1]), ("GPU-2a", [2]), ("GPU-", []),
        ("1,1", [1]),
    ],
)  # fmt: skip
def test_the_mask_hides_cards(mask: str | None, seen: list[int]) -> None:
    assert [gpu.index for gpu in devices.visible(CARDS, mask)] == seen


@pytest.mark.parametrize(
    ("name", "seen", "device"),
    [
        ("auto", [], "cpu"), ("auto", [2, 0], "cuda:2"), ("cuda", [2, 0], "cuda:2"), ("cuda:1", [2, 0], "cuda:0"),
        ("cuda:5", [2, 0], "cuda:5"), ("cpu", [0], "cpu"),
    ],
)  # fmt: skip
def test_a_device_has_one_name(name: str, seen: list[int], device: str) -> None:
    assert devices.resolve(name, [CARDS[index] for index in seen]) == device
