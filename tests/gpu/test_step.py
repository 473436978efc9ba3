"""Recovery's step on a GPU: recorded it does what it does operation by operation, and nobody waits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from steps import DEVICE, SIZE, assert_the_same_step, recovered
from torch import nn

from benchmarks.harness.options import parse
from benchmarks.harness.problem import fresh_run, settings
from engine import events
from engine.chunks import plan_chunks
from engine.concurrency import side_by_side
from engine.course import Course
from engine.losses import Terms
from engine.memory import times_that_fit
from engine.models.instrument import looking_into
from engine.optimise import WARM_UP, optimise, optimising
from engine.recipe import Recipe
from engine.telemetry import ROWS, LossBuffer


@pytest.mark.parametrize("micro_batch", [0, 7])
def test_a_recorded_step_is_the_step(
    images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe, micro_batch: int
) -> None:
    recipe = replace(recipe, micro_batch=micro_batch)
    assert_the_same_step(images_BCHW, network, recipe, replace(recipe, captured=True))


def test_bf16_stays_near_fp32(images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe) -> None:
    rows, _ = recovered(images_BCHW, network, recipe)
    fast, _ = recovered(images_BCHW, network, replace(recipe, captured=True, bf16=True))
    torch.testing.assert_close(fast[:, 0], rows[:, 0], rtol=0.03, atol=0)


@pytest.mark.parametrize("captured", [False, True], ids=["launched", "recorded"])
def test_no_step_waits_for_the_device(
    images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe, captured: bool
) -> None:
    """After the first steps any synchronisation raises, until the last step has been launched."""
    told: list[events.Event] = []
    rows_RL = torch.zeros(ROWS, Terms.width(recipe.layers), device=DEVICE)
    buffer = LossBuffer(told.append, 0, rows_RL)

    def after_step(iteration: int, *_: object) -> None:
        if iteration <= WARM_UP:
            buffer.add(iteration)
        if iteration == WARM_UP:
            buffer.flush()
            torch.cuda.set_sync_debug_mode("error")

    try:
        with looking_into(network, SIZE) as forward:
            optimise(images_BCHW, forward, replace(recipe, captured=captured), after_step=after_step, rows_RL=rows_RL)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(len(one.total) for one in told if isinstance(one, events.Iters)) == WARM_UP + 1


def test_a_recorded_run_goes_on_from_any_iteration(
    images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe
) -> None:
    kept: dict[str, torch.Tensor] = {}

    def after_step(iteration: int, _terms: Terms, images: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
        if iteration == 4:
            kept.update({"images": images.clone(), **{name: value.clone() for name, value in state.items()}})

    recipe = replace(recipe, captured=True)
    with looking_into(network, SIZE) as forward:
        final = optimise(images_BCHW, forward, recipe, after_step=after_step)
        images = kept.pop("images")
        again = optimise(images, forward, recipe, first=5, adam=kept)
    assert (again - final).abs().mean() < 1e-2


def test_chunks_side_by_side_are_the_chunks_alone(
    images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each on its own stream, recorded while the others' steps are under way."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = replace(recipe, captured=True)
    starts = [images_BCHW, -images_BCHW, images_BCHW.flip(3)]
    alone = [recovered(start, network, recipe)[1] for start in starts]
    with looking_into(network, SIZE) as forward:
        works = [partial(optimising, start, forward, recipe) for start in starts]
        together = dict(side_by_side(works, lambda: len(works)))
    for number, final in enumerate(alone):
        assert (together[number].cpu() - final).abs().mean() < 1e-2


def test_a_step_whose_record_does_not_fit_is_launched(
    images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, launched = recovered(images_BCHW, network, recipe)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no room for a record")

    monkeypatch.setattr(torch.cuda, "graph", full)
    told: list[str] = []
    with looking_into(network, SIZE) as forward:
        final = optimise(images_BCHW, forward, replace(recipe, captured=True), slower=told.append)
    assert (final.cpu() - launched).abs().mean() < 1e-2
    assert len(told) == 1


def test_the_first_chunk_shows_how_many_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen small chunks: one until its step is recorded, then many, and none where memory is said to be full."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    options = parse(["concurrency", "--device", "cuda", "--size", "small", "--set", "recover.concurrent=16"])
    with fresh_run(options, settings(options)) as ctx:
        chunk = plan_chunks(1, 1, 1, "per-class")[0]
        course = Course(ctx, 16, 16)
        assert course.at_once() == 1
        held = torch.zeros(1 << 24, device=DEVICE)
        for done in range(WARM_UP + 1):
            course.step(chunk, done)
        assert course.at_once() == 16
        assert held.numel()
        assert times_that_fit(torch.cuda.mem_get_info(DEVICE)[1], DEVICE) == 0
