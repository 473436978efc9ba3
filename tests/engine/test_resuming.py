"""A run that is resumed is seen to be at work from its first moment, and goes on as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine import __main__ as engine_main
from engine import checkpoints, events, models, presets, rundir
from engine.config import override
from engine.control import Control
from engine.models.placement import on_device
from engine.train import make_optimiser


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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_optimiser_read_back_goes_on_as_if_nothing_had_been(optimizer: str, tmp_path: Path) -> None:
    """A file holds tensors in rows; the weights lie in channels_last, and a fused step takes both as they lie."""
    settings = override(presets.get("digits"), [f"train.optimizer={optimizer}"])
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def network() -> nn.Module:
        built = models.build_student(settings, 10)
        models.initialise(built, 0, "student")
        return on_device(built, torch.device("cpu"))

    def step(student: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        functional.cross_entropy(student(images), torch.arange(4)).backward()
        optimiser.step()

    student = network()
    optimiser = make_optimiser(settings.train, student)
    step(student, optimiser)
    checkpoints.write(tmp_path / "one", checkpoints.capture(student, optimiser), {})
    again = network()
    after = make_optimiser(settings.train, again)
    checkpoints.restore(again, after, checkpoints.read(tmp_path / "one").tensors)
    for parameter in again.parameters():
        for value in after.state[parameter].values():
            assert value.shape != parameter.shape or value.stride() == parameter.stride()
    for one, other in ((student, optimiser), (again, after)):
        step(one, other)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), again.parameters(), strict=True))
