"""A second network that judges images: what names it, and what it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from engine import events, models, rundir
from engine.chunks import plan_chunks
from engine.config import RunConfig, override
from engine.context import Context
from engine.errors import ConfigError
from engine.models.checkpoint import save_safetensors
from engine.verifier import Verifier, load_verifier

CLASSES = 3


def settings_of(verifier: str) -> RunConfig:
    return RunConfig().model_copy(update={"recover": RunConfig().recover.model_copy(update={"verifier": verifier})})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("convnet4=", "what names a verifier"),
        ("=x.pth", "what names a verifier"),
        ("convnet9=nowhere.pth", "unknown architecture 'convnet9'"),
        ("convnet4=nowhere.pth", "no checkpoint file nowhere.pth"),
        ("convnet4", "torchvision has no trained weights of convnet4"),
    ],
)
def test_a_verifier_that_cannot_be_is_refused(entry: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_verifier(settings_of(entry), CLASSES)
    assert said in caught.value.message
    assert f"recover.verifier = '{entry}'" in caught.value.message
    assert "ARCH=PATH" in caught.value.remedy


def test_a_network_of_other_classes_is_refused(tmp_path: Path) -> None:
    save_safetensors(models.build("convnet3", 5, 16), tmp_path / "five.safetensors", {})
    with pytest.raises(ConfigError, match="for 5 classes; the data set has 3"):
        load_verifier(settings_of(f"convnet3={tmp_path / 'five.safetensors'}"), CLASSES)


def test_there_is_none_where_none_is_asked_for_or_nothing_is_recovered() -> None:
    assert load_verifier(RunConfig(), CLASSES) is None
    assert load_verifier(override(settings_of("nothing"), ["run.until=squeeze"]), CLASSES) is None


def test_it_counts_what_it_recognises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    network = models.build("convnet3", CLASSES, 16, width=4, seed=3).eval()
    told: list[events.Event] = []
    settings = settings_of("convnet3=some.pth")
    ctx = Context(settings, torch.device("cpu"), rundir.create(settings), told.append, lambda: False, lambda: False)
    chunk = plan_chunks(CLASSES, 4, 100, "per-class")[0]
    images = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("engine.verifier.FORWARD_BATCH", 5)
    Verifier(ctx, network).look(chunk, 300, images)()
    with torch.no_grad():
        logits = network(images)
    (event,) = told
    assert isinstance(event, events.Metrics)
    assert (event.stage, event.student, event.chunk, event.epoch) == ("verifier", "convnet3", 0, 300)
    assert event.top1 == pytest.approx(100 * float((logits.argmax(1) == chunk.labels_B).float().mean()))
    assert event.loss == pytest.approx(float(functional.cross_entropy(logits, chunk.labels_B)), rel=1e-4)
