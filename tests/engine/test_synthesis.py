"""Images taken as they are, features on disk, the yardstick of images, options without effect."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import effects, events, models, presets, rundir, space
from engine.artifacts import Cache
from engine.config import RunConfig, override
from engine.context import Context
from engine.data import normalise
from engine.data.given import load_given
from engine.errors import ConfigError, DataError, RunDirError
from engine.losses import Coefficients, Targets
from engine.models.instrument import Probe
from engine.quality import measure
from engine.reuse import FeatureFile


def _set(root: Path, folders: list[str], images: int) -> Path:
    for number, name in enumerate(folders):
        (root / name).mkdir(parents=True)
        for ordinal in range(images):
            Image.new("RGB", (8, 8), (10 * number, ordinal, 0)).save(
                root / name / f"class{number:03d}_id{ordinal:03d}.png"
            )
    return root


@pytest.mark.parametrize("folders", [["b", "a"], ["new000", "new001"]], ids=["by class id", "by order"])
def test_given_images_are_taken_in_class_order(tmp_path: Path, folders: list[str]) -> None:
    images_NCHW = load_given(str(_set(tmp_path, folders, 3)), ("b", "a"), 3, 8)
    assert images_NCHW[:, 0, 0, 0].tolist() == [0, 0, 0, 10, 10, 10]
    assert images_NCHW[:, 1, 0, 0].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("folders", "ipc", "said"),
    [
        (["a", "b"], 4, "holds 3 images, ipc is 4"),
        (["a", "x"], 3, "no folder of class 'b'"),
        (["p", "q", "r"], 3, "3 class folders, the data set has 2"),
    ],
)
def test_a_given_set_that_does_not_fit_is_refused(tmp_path: Path, folders: list[str], ipc: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_given(str(_set(tmp_path, folders, 3)), ("a", "b"), ipc, 8)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Context, list[str]]]:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))

    def make() -> tuple[Context, list[str]]:
        said: list[str] = []
        run = rundir.create(RunConfig())

        def emit(event: events.Event) -> None:
            if isinstance(event, events.Log):
                said.append(event.message)

        made = Context(RunConfig(), torch.device("cpu"), run, emit, lambda: False, lambda: False)
        return made, said

    return make


def test_features_live_in_a_mapped_file_that_later_runs_find(
    context: Callable[[], tuple[Context, list[str]]],
) -> None:
    ctx, _ = context()
    features = FeatureFile(ctx, Cache(), "key")
    features_ND = features.allocate(5, 3)
    features_ND[:] = torch.arange(15.0).reshape(5, 3)
    assert not features.path.exists(), "no file under its name before it is whole"
    sha256 = features.commit()
    assert isinstance(np.load(features.path, mmap_mode="r"), np.memmap)
    other, said = context()
    found = FeatureFile(other, Cache(), "key").open(sha256)
    assert found is not None
    torch.testing.assert_close(found, torch.arange(15.0).reshape(5, 3))
    assert not said
    found[:] = 0  # copy-on-write: the file keeps its content
    assert FeatureFile(other, Cache(), "key").open(sha256) is not None


def test_damaged_features_are_said_and_not_used(context: Callable[[], tuple[Context, list[str]]]) -> None:
    ctx, said = context()
    features = FeatureFile(ctx, Cache(enabled=False), "key")
    features.allocate(2, 2)[:] = 1.0
    sha256 = features.commit()
    features.path.write_bytes(features.path.read_bytes()[:-1] + b"\x07")
    assert features.open(sha256) is None
    assert "damaged" in said[0]


def test_real_images_of_their_own_statistics_have_no_distance(
    context: Callable[[], tuple[Context, list[str]]],
) -> None:
    """Targets taken from the measured images themselves: every term but cross-entropy is zero."""
    network = models.build("convnet3", 2, 16, width=4).eval()
    images_NCHW = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels_N = torch.tensor([0, 0, 0, 1, 1, 1])
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    probe = Probe(network)
    with torch.no_grad():
        logits, features_ND, inputs = probe(normalise(images_NCHW, mean, std))
    probe.close()
    share_GB = torch.zeros(2, 6)
    share_GB[labels_N, torch.arange(6)] = 1 / 3
    per_class = [[x[labels_N == c] for c in (0, 1)] for x in inputs]
    targets = Targets(
        labels_N,
        labels_N,
        share_GB,
        tuple(torch.stack([x.mean((0, 2, 3)) for x in pair]) for pair in per_class),
        tuple(torch.stack([x.var((0, 2, 3), unbiased=False) for x in pair]) for pair in per_class),
        features_ND,
    )
    found = measure(context()[0], network, [(images_NCHW, targets)], Coefficients(1, 1, 10), mean, std)
    assert found.feature == pytest.approx(0, abs=1e-4)
    assert found.bn == pytest.approx(0, abs=1e-3)
    assert found.teacher_top1 == pytest.approx(100 * float((logits.argmax(1) == labels_N).float().mean()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["recover.milestone=0.5"], "recover.curriculum = 'none': recover.milestone = 0.5"),
        (["recover.objective=real", "recover.lr=3.0"], "optimises nothing"),
        (["statistics.loading_batch=7"], "statistics.loading_batch = 7"),
        (["train.labels=hard", "train.temperature=4"], "train.temperature = 4.0"),
        (["relabel.mix=none", "relabel.alpha=0.5"], "relabel.alpha = 0.5"),
    ],
)
def test_options_without_effect_are_named(changes: list[str], said: str) -> None:
    assert said in "\n".join(effects.without_effect(override(presets.get("digits"), changes)))


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_presets_hold_no_idle_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_DATA", "/data")
    assert effects.without_effect(presets.get(name)) == []


@pytest.mark.parametrize(
    ("arch", "resolution"), [("vgg11_bn", 16), ("inception_v3", 64), ("convnet4", 8), ("densenet121", 16)]
)
def test_a_resolution_the_network_cannot_take_is_said_before_work(arch: str, resolution: int) -> None:
    with pytest.raises(ConfigError, match=str(resolution)):
        models.build_teacher(override(RunConfig(), [f"teacher.arch={arch}", f"data.resolution={resolution}"]), 10)


def test_a_disk_too_small_ends_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = presets.get("digits")
    network = models.build_teacher(settings, 10)
    needed = space.needed_bytes(settings, 10, 1438, 128, network)
    run = rundir.create(settings)
    usage = shutil.disk_usage(run.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed - 100_000))
    with pytest.raises(RunDirError, match="free; this run writes up to"):
        space.require_space(run, needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed))
    space.require_space(run, needed)


def test_a_disk_that_fills_up_is_said_once(
    context: Callable[[], tuple[Context, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx, said = context()
    ctx.needed = 10_000_000
    usage = shutil.disk_usage(ctx.run.path)
    for free in (20_000_000, 5_000_000, 4_000_000, 20_000_000, 5_000_000):
        monkeypatch.setattr(shutil, "disk_usage", lambda _path, free=free: usage._replace(free=free))
        ctx.begin_stage()
    assert len(said) == 2
    assert "5 MB free, and up to 10 MB may still be written" in said[0]


def test_space_needed_covers_what_a_run_writes() -> None:
    """Soft labels dominate a large set: 300 epochs of 10,000 images in 1,000 classes are 6 GB."""
    settings = presets.get("imagenet1k-ipc10")
    network = models.build("resnet18", 1000, 224)
    needed = space.needed_bytes(settings, 1000, 1_281_167, 512, network)
    assert 2 * 300 * 10_000 * 1000 + 4 * 1_281_167 * 512 < needed < 15e9
