"""What stands in for a GPU refuses what a card refuses; and by it, that no loop of the engine waits for the device."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from simulated import GPU, State
from steps import SIZE, start
from test_pipeline import made
from torch import nn

from engine.concurrency import side_by_side
from engine.models.instrument import looking_into
from engine.optimise import optimising
from engine.recipe import Recipe


def recorded(step: object) -> torch.cuda.CUDAGraph:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def test_tensors_of_two_devices_do_not_meet() -> None:
    here = torch.zeros(3, 4).to("cuda")
    assert here.device == torch.ones(1, device="cuda").device == GPU
    assert (here + torch.tensor(1.0)).device == GPU  # a number
    layer = torch.nn.Linear(4, 2)
    for work in (lambda: here + torch.zeros(3, 4), lambda: layer(here), lambda: torch.cat([here, here.cpu()])):
        with pytest.raises(RuntimeError, match="same device"):
            work()
    with pytest.raises(TypeError, match="numpy"):
        here.numpy()
    assert layer.to("cuda")(here).device == GPU


def test_a_gradient_finds_its_way_through_both() -> None:
    host = torch.tensor([3.0], requires_grad=True)
    (host.to("cuda") ** 2).cpu().backward()
    assert host.grad == 6


@pytest.mark.parametrize(
    ("wait", "waits"),
    [
        (lambda one: one.sum().item(), True),
        (lambda one: bool(one.isfinite().all()), True),
        (lambda one: one.cpu(), True),
        (lambda one: one[one > 0], True),
        (lambda one: torch.tensor([1.0], device=one.device), True),
        (lambda one: one.to(torch.float16), False),
        (lambda one: torch.zeros(2).to(one.device, non_blocking=True), False),
        (lambda one: one.index_select(0, torch.zeros(1, dtype=torch.long, device=one.device)), False),
    ],
)
def test_waiting_is_counted_refused_and_not_recorded(gpu: State, wait: object, waits: bool) -> None:
    here = torch.ones(4, device="cuda")
    gpu.waits.clear()
    wait(here)
    assert bool(gpu.waits) is waits
    torch.cuda.set_sync_debug_mode("error")
    try:
        if waits:
            with pytest.raises(RuntimeError, match="synchronizing"):
                wait(here)
            with pytest.raises(RuntimeError, match="capturing"):
                recorded(lambda: wait(here))
        else:
            wait(here)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_recording_leaves_no_trace_and_repeats_what_the_host_said_then() -> None:
    total, number = torch.zeros(1, device="cuda"), 2.0

    def step() -> None:
        total.add_((total + number).relu().mean())

    graph = recorded(step)
    assert total.item() == 0
    number = 100.0
    graph.replay()
    graph.replay()
    assert total.item() == 6  # 0 + 2, then 2 + 4


def test_graphs_replayed_side_by_side_share_no_workspace(gpu: State, network: nn.Module, recipe: Recipe) -> None:
    """They are recorded on one stream, whose workspace cuBLAS would give to all of them."""
    gpu.graphs.clear()
    with looking_into(network, SIZE) as forward:
        works = [partial(optimising, start(), forward, replace(recipe, captured=True)) for _ in range(3)]
        assert len(dict(side_by_side(works, lambda: len(works)))) == 3
    found = [graph.workspace for graph in gpu.graphs]
    assert None not in found
    assert len(set(found)) == 3


@pytest.mark.parametrize("more", [[], ["data.storage=stream"], ["relabel.storage=online"]], ids=str)
def test_no_loop_waits_for_the_device(gpu: State, more: list[str]) -> None:
    """Three times the steps of squeeze, statistics, recovery and training, and the host waits as often as before.

    What looks at the clock, telemetry, is not counted. A process's first run uploads constants that it keeps (the
    colour channels' mean): a run goes ahead of the two compared.
    """
    counts = []
    for steps in (1, 1, 3):
        gpu.waits.clear()
        _, _, work = made(
            "cuda", [
                f"squeeze.batch_size={120 // steps}", f"statistics.batch_size={120 // steps}",
                f"recover.iterations={6 * steps}", "recover.preview_every=0", "recover.checkpoint_every=100",
                f"train.batch_size={18 // steps}", f"relabel.mix_group={18 // steps}", "run.precision=bf16", *more,
            ],
        )  # fmt: skip
        work()
        counts.append({place: times for place, times in gpu.waits.items() if not place.startswith("telemetry.py")})
    assert counts[1] == counts[2]
