"""Training the student: the averaged student is the exponential mean of the steps' weights, resumed or not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import models, rundir
from engine.config import RunConfig, override
from engine.context import Context
from engine.data.source import ResidentSource
from engine.errors import Stopped
from engine.softlabels import SyntheticSet
from engine.train import train_student

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
    synthetic = SyntheticSet(images_NCHW, labels_N, torch.full((8,), 0.25))

    def train(settings: RunConfig, run: rundir.RunDir, stop_after: int = 10**9) -> nn.Module:
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
            None,
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


def test_an_averaged_student_resumes_to_the_same_bytes(trained: Callable[..., nn.Module]) -> None:
    settings = override(SETTINGS, [f"train.ema={DECAY}"])
    whole = trained(settings, rundir.create(settings)).state_dict()
    run = rundir.create(settings)
    with pytest.raises(Stopped):
        trained(settings, run, stop_after=7)
    resumed = trained(settings, run).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
