"""Training the student: the averaged student is the exponential mean of the steps' weights, resumed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import models, rundir
from engine.config import RunConfig, TrainConfig, override
from engine.context import Context
from engine.data.source import ResidentSource
from engine.errors import ConfigError, Stopped
from engine.softlabels import SyntheticSet
from engine.train import parts_of, pieces_of, train_student

MEAN = STD = (0.5, 0.5, 0.5)
DECAY = 0.8
SETTINGS = override(
    RunConfig(),
    [
        "data.resolution=8", "teacher.width=4", "relabel.storage=online", "train.labels=hard", "train.epochs=3",
        "train.batch_size=4", "train.eval_every=1",
    ],
)  # fmt: skip


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    pixels = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (8, 3, 8, 8), generator=pixels, dtype=torch.uint8)
    labels_N = torch.arange(8) % 2

    def train(
        settings: RunConfig,
        run: rundir.RunDir,
        stop_after: int = 10**9,
        weights: torch.Tensor | None = None,
        stored: Callable[[int], torch.Tensor] | None = None,
    ) -> nn.Module:
        plain = torch.full((8,), 0.25)
        synthetic = SyntheticSet(images_NCHW, labels_N, plain if weights is None else weights, weights is not None)
        asked = 0

        def interrupted() -> bool:
            nonlocal asked
            asked += 1
            return asked > stop_after

        ctx = Context(settings, torch.device("cpu"), run, lambda _event: None, interrupted, lambda: True)
        student = models.build_student(settings, 2)
        models.initialise(student, settings.seed, "student")
        train_student(
            ctx,
            synthetic,
            student,
            None,
            ResidentSource(images_NCHW, labels_N, torch.device("cpu")),
            MEAN,
            STD,
            stored,
            "work",
        )
        return student

    return train


def test_the_averaged_student_is_the_mean_of_the_steps(
    trained: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[torch.Tensor] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, closure: None = None) -> None:
        original(self, closure)
        steps.append(self.param_groups[0]["params"][0].detach().clone())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    last = trained(SETTINGS, rundir.create(SETTINGS))
    plain = list(steps)
    assert torch.equal(next(last.parameters()), plain[-1])
    steps.clear()
    settings = override(SETTINGS, [f"train.ema={DECAY}"])
    averaged = trained(settings, rundir.create(settings))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(steps, plain, strict=True))
    mean = plain[0]
    for weights in plain[1:]:
        mean = DECAY * mean + (1 - DECAY) * weights
    assert torch.allclose(next(averaged.parameters()), mean, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(mean, plain[-1], rtol=1e-5, atol=1e-7)


def test_a_gradient_gathered_over_parts_is_that_of_the_whole_batch(
    trained: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without BatchNorm, which sees each part alone, nothing but rounding tells them apart."""
    looked: list[int] = []

    def steps_of(*changes: str) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []

        def step(self: torch.optim.SGD) -> None:
            found.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))

        def build(*_: object) -> nn.Module:
            network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
            network.register_forward_pre_hook(lambda _module, inputs: looked.append(len(inputs[0])))
            return network

        looked.clear()
        monkeypatch.setattr(torch.optim.SGD, "step", step)
        monkeypatch.setattr(models, "build_student", build)
        plain = ("train.optimizer=sgd", "train.epochs=1", "train.batch_size=6", "run.precision=fp32")
        settings = override(SETTINGS, [*plain, *changes])
        trained(settings, rundir.create(settings))
        return found

    whole = steps_of()
    assert looked[:-1] == [6, 2]
    gathered = steps_of("train.accumulate=3")
    assert looked[:-1] == [2, 2, 2, 2], "the last step has as many parts as such parts make"
    for ours, theirs in zip(gathered, whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_weights_of_images_count_against_the_steps_mean(
    trained: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a step is gathered over parts whose own mean weights differ."""
    gradients: list[torch.Tensor] = []

    def step(self: torch.optim.SGD) -> None:
        gradients.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    monkeypatch.setattr(models, "build_student", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)))
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(1)).half()
    changes = ["train.labels=soft", "relabel.storage=stored", "train.optimizer=sgd", "train.epochs=1"]
    for pieces in (1, 4):
        settings = override(SETTINGS, [*changes, "train.batch_size=8", f"train.accumulate={pieces}"])
        trained(settings, rundir.create(settings), weights=torch.arange(1.0, 9.0), stored=lambda _epoch: logits)
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize(("batch", "accumulate", "ranks", "pieces"), [
    (100, 1, 1, 1), (101, 1, 1, 1), (100, 4, 1, 4), (30, 4, 1, 2), (3, 4, 1, 1), (100, 4, 2, 4), (10, 50, 2, 2),
])  # fmt: skip
def test_parts_of_a_step(batch: int, accumulate: int, ranks: int, pieces: int) -> None:
    config = TrainConfig(batch_size=100, accumulate=accumulate)
    assert pieces_of(batch, config, ranks) == pieces
    parts = parts_of(slice(7, 7 + batch), pieces)
    assert parts[0].start == 7
    assert sum(one.stop - one.start for one in parts) == batch
    assert min(one.stop - one.start for one in parts) >= 2


@pytest.mark.parametrize("accumulate", [3, 100])
def test_parts_that_cannot_be_equal_are_refused(accumulate: int) -> None:
    with pytest.raises(ConfigError, match=f"train.accumulate = {accumulate} does not divide"):
        override(RunConfig(), [f"train.accumulate={accumulate}"])


def test_an_averaged_student_resumes_to_the_same_bytes(trained: Callable[..., nn.Module]) -> None:
    settings = override(SETTINGS, [f"train.ema={DECAY}"])
    whole = trained(settings, rundir.create(settings)).state_dict()
    run = rundir.create(settings)
    with pytest.raises(Stopped):
        trained(settings, run, stop_after=7)
    resumed = trained(settings, run).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
