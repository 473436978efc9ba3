"""Works side by side: in turns, as many as wanted, stopped together; how many chunks a device is given."""

from __future__ import annotations

import pytest

from engine.concurrency import FILLING, MOST, Steps, chunks_at_once, finished, side_by_side
from engine.config import RunConfig
from engine.errors import Stopped


def _work(name: str, steps: int, said: list[str], failure: Exception | None = None) -> Steps[str]:
    for step in range(steps):
        said.append(f"{name}{step}")
        yield
    if failure is not None:
        raise failure
    return name


@pytest.mark.parametrize(
    ("at_once", "order"),
    [
        (1, "a0 a1 b0 c0 c1 c2"),
        (2, "a0 b0 a1 c0 c1 c2"),
        (3, "a0 b0 c0 a1 c1 c2"),
        (9, "a0 b0 c0 a1 c1 c2"),
    ],
)
def test_works_take_turns(at_once: int, order: str) -> None:
    said: list[str] = []
    works = [lambda n=name, s=steps: _work(n, s, said) for name, steps in (("a", 2), ("b", 1), ("c", 3))]
    running: list[int] = []
    assert dict(side_by_side(works, lambda: at_once, running.append)) == {0: "a", 1: "b", 2: "c"}
    assert said == order.split()
    assert max(running) == min(at_once, 3)
    assert min(running) == 1


def test_more_may_begin_while_one_runs() -> None:
    """As where the first shows how many fit."""
    said: list[str] = []
    works = [lambda n=name: _work(n, 4, said) for name in "abc"]
    assert len(list(side_by_side(works, lambda: 1 if len(said) < 2 else 3))) == 3
    assert said[:5] == ["a0", "a1", "a2", "b0", "c0"]


def test_a_stop_reaches_every_running_work_and_no_other() -> None:
    said: list[str] = []
    asked = False

    def stoppable(name: str) -> Steps[str]:
        for step in range(100):
            if asked:
                said.append(f"{name} saved")
                raise Stopped("stopped in recover")
            if step > 2 and name == "b":
                yield from _ask()
            yield
        return name

    def _ask() -> Steps[None]:
        nonlocal asked
        asked = True
        yield

    works = [lambda n=name: stoppable(n) for name in "abc"]
    with pytest.raises(Stopped):
        list(side_by_side(works, lambda: 2))
    assert sorted(said) == ["a saved", "b saved"]


def test_an_error_is_raised_at_once() -> None:
    said: list[str] = []
    works = [lambda: _work("a", 1, said, ValueError("no")), lambda: _work("b", 5, said)]
    with pytest.raises(ValueError, match="no"):
        list(side_by_side(works, lambda: 2))
    assert said == ["a0", "b0"]


def test_one_work_alone() -> None:
    assert finished(_work("a", 3, [])) == "a"


def _config(concurrent: int) -> RunConfig:
    usual = RunConfig()
    return usual.model_copy(update={"recover": usual.recover.model_copy(update={"concurrent": concurrent})})


@pytest.mark.parametrize(
    ("concurrent", "chunks", "multiplications", "cuda", "expected"),
    [
        (0, 100, 1.0, False, 1),
        (0, 100, 2 * FILLING, True, 1),
        (0, 100, FILLING / 3, True, 3),
        (0, 100, 1.0, True, MOST),
        (0, 2, 1.0, True, 2),
        (5, 100, 2 * FILLING, True, 5),
        (5, 100, 1.0, False, 5),
        (5, 2, 1.0, False, 2),
    ],
)
def test_how_many_chunks(concurrent: int, chunks: int, multiplications: float, cuda: bool, expected: int) -> None:
    assert chunks_at_once(_config(concurrent), chunks, multiplications, cuda) == expected
