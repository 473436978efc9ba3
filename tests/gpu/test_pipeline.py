"""Whole runs on a GPU: nothing is where it should not be, and what comes out is what a CPU makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from simulated import State

from engine import events, presets, rundir
from engine.config import override
from engine.context import Context
from engine.errors import Stopped
from engine.optimise import WARM_UP
from engine.outcome import Outcome
from engine.pipeline import execute
from engine.session import choose_device
from engine.telemetry import Nvml, read_memory

SMALL = [
    "ipc=2", "data.max_per_class=12", "teacher.width=4", "squeeze.epochs=1", "recover.iterations=6",
    "recover.preview_every=5", "train.epochs=2", "train.eval_every=1", "run.precision=fp32", "run.threads=1",
    "run.use_cache=false",
]  # fmt: skip

#: By what it is that differs from the plain run.
WAYS: dict[str, list[str]] = {
    "bf16": ["run.precision=bf16", "statistics.precision=bf16", "statistics.variance=batch-averaged"],
    "SRe2L": ["recover.objective=sre2l", "recover.bn=global", "recover.chunk=across-classes", "recover.quality=false"],
    "micro-batches": ["recover.micro_batch=7", "recover.tv=0.1", "recover.l2=0.1", "recover.augment=per-image"],
    "chunks side by side": ["recover.batch_size=4", "recover.concurrent=3", "recover.checkpoint_every=2"],
    "patches": ["recover.init=patches", "recover.patches_per_image=4", "recover.patch_choice=barycenter"],
    "photographs as they are": ["recover.objective=real", "train.loss=mse-gt", "train.optimizer=sgd"],
    "equations of the paper": ["recover.loss_semantics=paper", "recover.curriculum=cosine", "recover.init=real"],
    "labels online": ["relabel.storage=online", "relabel.mix=mixup", "train.ema=0.9", "train.loss=soft-ce"],
    "labels coded": ["relabel.top_k=2", "relabel.bits=8", "relabel.mix=none", "train.accumulate=2"],
    "hard labels": ["train.labels=hard", "train.augment=randaugment", "barycenter.weights=optimized"],
    "all photographs": ["train.images=real", "train.labels=hard"],
    "a teacher of many tricks": [
        "squeeze.mixup=0.2", "squeeze.cutmix=1.0", "squeeze.ema=0.9", "squeeze.erase=0.3", "squeeze.keep=best",
        "squeeze.augment=trivialaugment", "squeeze.optimizer=rmsprop", "squeeze.label_smoothing=0.1",
    ],
    "streamed": ["data.storage=stream", "squeeze.augment=augmix", "squeeze.optimizer=adamw"],
    "committee and students": ['teacher.committee=["convnet4"]', 'train.students=["convnet3","convnet4"]'],
}  # fmt: skip


def made(
    device: str, changes: list[str], asked_to_stop: Callable[[], bool] = lambda: False
) -> tuple[rundir.RunDir, list[events.Event], Callable[[], Outcome]]:
    """A run, what it says, and what does it, or goes on with it."""
    config = override(presets.get("digits"), [*SMALL, *changes])
    run, said = rundir.create(config), list[events.Event]()
    place = choose_device(device)
    return run, said, lambda: execute(Context(config, place, run, said.append, asked_to_stop, lambda: False))


def images_of(run: rundir.RunDir) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path), np.float32) for path in sorted(run.images.rglob("*.png"))])


def test_a_run_is_what_it_is_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher, barycenters, images and student; rounding apart."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    outcomes: list[Any] = []
    for device in ("cpu", "cuda"):
        _, said, work = made(device, [])
        outcomes.append(work())
        (hello,) = [one for one in said if isinstance(one, events.Hello)]
        assert hello.device.startswith(device)
        assert not [one.message for one in said if isinstance(one, events.Log) and one.level != "info"]
    cpu, gpu = outcomes
    assert gpu.teacher_top1 == pytest.approx(cpu.teacher_top1, abs=2)
    for name, value in cpu.quality["images"].items():
        assert gpu.quality["images"][name] == pytest.approx(value, rel=0.02, abs=0.05), name
    assert gpu.student.top1 == pytest.approx(cpu.student.top1, abs=5)


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_every_way(changes: list[str]) -> None:
    _, said, work = made("cuda", changes)
    work()
    assert any(isinstance(one, events.Metrics) and one.stage == "train" for one in said)


def test_a_stopped_run_goes_on_to_the_same_images(gpu: State | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in recovery after its step was recorded. Sums of a card have no fixed order."""

    def recorded(event: events.Event) -> bool:
        return isinstance(event, events.Image) and event.iteration > WARM_UP

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    whole, _, work = made("cuda", [])
    work()
    asked = True
    half, said, work = made("cuda", [], lambda: asked and any(map(recorded, said)))
    with pytest.raises(Stopped):
        work()
    assert list(half.checkpoints.glob("recover-*"))
    asked = False
    work()
    assert any("goes on" in one.message for one in said if isinstance(one, events.Log))
    assert np.abs(images_of(half) - images_of(whole)).mean() <= (0 if gpu else 3)


def test_its_memory_is_told() -> None:
    import psutil

    device = choose_device("cuda")
    memory = read_memory(device, psutil.Process(), Nvml(device))
    assert memory.device_total >= memory.device_free > 0
