"""Compiled steps of squeeze and train are the same steps, or plain ones and a warning; the decision is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import compiling, events, models, rundir
from engine.config import RunConfig, override
from engine.context import Context
from engine.data import load_dataset
from engine.errors import Stopped
from engine.softlabels import SyntheticSet
from engine.squeeze import squeeze
from engine.train import train_student

CPU = torch.device("cpu")
SETTINGS = override(
    RunConfig(),
    [
        "data.resolution=8", "data.max_per_class=30", "teacher.width=4", "squeeze.epochs=2", "squeeze.batch_size=90",
        "relabel.storage=online", "train.labels=hard", "train.epochs=4", "train.batch_size=4", "run.precision=fp32",
    ],
)  # fmt: skip
STAGES = ["squeeze", "train"]


@pytest.fixture
def do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[dict[str, torch.Tensor], list[str]]]:
    """Train a teacher or a student under some settings: its tensors, and what the run was told."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    monkeypatch.setattr(compiling, "missing", lambda _device: "")
    dataset = load_dataset(SETTINGS.data, 0, CPU)

    def work(
        stage: str, settings: RunConfig, run: rundir.RunDir | None = None, stop_after: int = 10**9
    ) -> tuple[dict[str, torch.Tensor], list[str]]:
        told: list[str] = []
        asked = 0

        def interrupted() -> bool:
            nonlocal asked
            asked += 1
            return asked > stop_after

        def emit(event: events.Event) -> None:
            if isinstance(event, events.Log):
                told.append(event.message)

        ctx = Context(settings, CPU, run or rundir.create(settings), emit, interrupted, lambda: False)
        network = models.build_teacher(settings, 10)
        models.initialise(network, 0, stage)
        if stage == "squeeze":
            squeeze(ctx, dataset, network, "work")
        else:
            rows = torch.arange(10)
            synthetic = SyntheticSet(
                dataset.train.batch(rows), dataset.train.labels_N[rows], torch.full((10,), 0.1), False
            )
            train_student(ctx, synthetic, network, None, dataset.val, dataset.mean, dataset.std, None, "work")
        return {name: tensor.clone() for name, tensor in network.state_dict().items()}, told

    return work


def _through(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile without the code generator, which needs a compiler and half a minute; tests/gpu has it."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))


@pytest.mark.parametrize("stage", STAGES)
def test_compiled_steps_are_the_steps(
    stage: str, do: Callable[..., tuple[dict[str, torch.Tensor], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = do(stage, SETTINGS)
    _through("aot_eager", monkeypatch)
    compiled, told = do(stage, override(SETTINGS, [f"{stage}.compile=on"]))
    assert f"{stage}: compiling the step" in told
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("stage", STAGES)
def test_an_epochs_last_smaller_batch_is_not_compiled(
    stage: str, do: Callable[..., tuple[dict[str, torch.Tensor], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def noting(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        sizes.extend(len(one) for one in inputs if one.shape[1:] == (3, 8, 8))
        return graph.forward

    _through(noting, monkeypatch)
    settings = override(SETTINGS, [f"{stage}.compile=on", "squeeze.batch_size=200", "train.batch_size=6"])
    do(stage, settings)
    assert sizes == [{"squeeze": 200, "train": 6}[stage]]


@pytest.mark.parametrize("stage", STAGES)
def test_where_compiling_fails_the_run_goes_on_as_without(
    stage: str, do: Callable[..., tuple[dict[str, torch.Tensor], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt leaves no trace: weights, BatchNorm's statistics and random numbers are as if it had not been."""

    def broken(*_: object) -> nn.Module:
        raise RuntimeError("no code\nfor this")

    plain, _ = do(stage, SETTINGS)
    _through(broken, monkeypatch)
    found, told = do(stage, override(SETTINGS, [f"{stage}.compile=on"]))
    assert any(one.startswith(f"{stage}: steps are not compiled: ") and "\n" not in one for one in told), told
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


@pytest.mark.parametrize("stage", STAGES)
def test_a_decision_is_kept_and_a_resumed_run_does_the_same(
    stage: str, do: Callable[..., tuple[dict[str, torch.Tensor], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _through("aot_eager", monkeypatch)
    monkeypatch.setattr(compiling, "repays", lambda *_: True)
    whole, _ = do(stage, SETTINGS)
    run = rundir.create(SETTINGS)
    with pytest.raises(Stopped):
        do(stage, SETTINGS, run, stop_after=4)
    monkeypatch.setattr(compiling, "repays", lambda *_: False)
    assert getattr(run.config(), stage).compile == "on"
    resumed, told = do(stage, run.config(), run)
    assert f"{stage}: compiling the step" in told
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_without_a_compiler_steps_are_plain_and_that_is_said(
    do: Callable[..., tuple[dict[str, torch.Tensor], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "missing", lambda _device: "no compiler was found (gcc or clang, or what CC names)")
    plain, _ = do("train", SETTINGS)
    found, told = do("train", override(SETTINGS, ["train.compile=on"]))
    assert any("no compiler was found" in one for one in told)
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


def test_what_a_compiler_is_looked_for_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "g++ or clang++" in compiling.missing(CPU)
    compiler = tmp_path / "mine"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert compiling.missing(CPU) == ""


def test_it_repays_on_a_gpu_from_so_much_work_on() -> None:
    """ResNet-18 at 224 px: ImageNet's 1.28 million images over 100 epochs do, ImageNette's 9,469 over 50 do not."""
    network = models.build("resnet18", 10, 224)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gpu = torch.device("cuda")
    assert compiling.repays("squeeze", gpu, network, 224, 1_281_167 * 100)
    assert not compiling.repays("squeeze", gpu, network, 224, 9_469 * 50)
    assert not compiling.repays("squeeze", CPU, network, 224, 1_281_167 * 100)
    small = models.build("convnet3", 10, 16, width=8)
    assert compiling.repays("recover", gpu, small, 16, 1e13)
    assert not compiling.repays("recover", gpu, small, 16, 100)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
