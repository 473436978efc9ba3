"""Where images start: noise, photographs, the best patches of a pool of photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from engine import effects, models, presets
from engine.chunks import Chunk, plan_chunks
from engine.config import RecoverConfig, RunConfig, override
from engine.data import Dataset, normalise
from engine.data.source import ResidentSource, StreamedSource
from engine.errors import ConfigError, Stopped
from engine.losses import Targets
from engine.models.instrument import Probe
from engine.recover import to_uint8
from engine.starts import initial_images, real_indices

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES, EACH, SIZE, IPC = 3, 23, 17, 5

Start = Callable[..., torch.Tensor]


def _pictures() -> tuple[torch.Tensor, torch.Tensor]:
    images_NCHW = torch.randint(
        0, 256, (CLASSES * EACH, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return images_NCHW, torch.arange(CLASSES).repeat(EACH)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    images_NCHW, labels_N = _pictures()
    names = tuple("abc")
    source = ResidentSource(images_NCHW, labels_N, torch.device("cpu"))
    return Dataset("made", names, names, SIZE, source, source, "f", MEAN, STD)


@pytest.fixture(scope="module")
def teacher() -> nn.Module:
    network = models.build("convnet3", CLASSES, SIZE, width=4)
    models.initialise(network, 3, "teacher")
    return network.eval()


def _targets(chunk: Chunk, features_BD: torch.Tensor | None = None) -> Targets:
    nothing = torch.zeros(1, len(chunk.labels_B))
    return Targets(chunk.labels_B, torch.zeros_like(chunk.labels_B), nothing, (), (), features_BD)


@pytest.fixture
def start(dataset: Dataset, teacher: nn.Module) -> Start:
    def make(chunk: Chunk, data: Dataset = dataset, features_BD: torch.Tensor | None = None, **options: object):  # type: ignore[no-untyped-def]
        config = RecoverConfig.model_validate({"init": "patches", **options})
        probe = Probe(teacher)
        try:
            return initial_images(chunk, data, config, IPC, 7, probe, _targets(chunk, features_BD))
        finally:
            probe.close()

    return make


def _whole() -> Chunk:
    return plan_chunks(CLASSES, IPC, 100, "per-class")[0]


def test_the_control_and_a_start_of_photographs_are_the_same_bytes(dataset: Dataset, start: Start) -> None:
    chunk = _whole()
    photographs = dataset.train.batch(real_indices(chunk, dataset.train.labels_N, 7))
    assert torch.equal(to_uint8(start(chunk, init="real"), MEAN, STD, nearest=True), photographs)
    assert torch.equal(dataset.train.labels_N[real_indices(chunk, dataset.train.labels_N, 7)], chunk.labels_B)


def test_one_photograph_without_a_choice_is_the_control(start: Start) -> None:
    chunk = _whole()
    torch.testing.assert_close(start(chunk, patch_photos=IPC, patch_crops=1), start(chunk, init="real"))


def _photographs(dataset: Dataset) -> torch.Tensor:
    return normalise(dataset.train.batch(torch.arange(CLASSES * EACH)), MEAN, STD)


def test_the_surest_photograph_of_each_pool(dataset: Dataset, teacher: nn.Module, start: Start) -> None:
    """Pools of a class share no photograph and hold all of them; each image is its own pool's best."""
    chunk = _whole()
    photographs_NCHW = _photographs(dataset)
    with torch.no_grad():
        cost_N = functional.cross_entropy(teacher(photographs_NCHW), dataset.train.labels_N, reduction="none")
    found_BCHW = start(chunk, patch_photos=0, patch_crops=1)
    taken = [(photographs_NCHW - image).abs().amax((1, 2, 3)).argmin().item() for image in found_BCHW]
    assert len(set(taken)) == len(taken)
    assert dataset.train.labels_N[taken].tolist() == chunk.labels_B.tolist()
    for label in range(CLASSES):
        members = (dataset.train.labels_N == label).nonzero().flatten()
        best = members[cost_N[members].argmin()].item()
        assert best in taken, "the best of a class is the best of its pool"


def test_nearest_to_the_barycenter(dataset: Dataset, teacher: nn.Module, start: Start) -> None:
    """A barycenter that is the feature of one photograph of the pool brings that photograph."""
    chunk = Chunk(0, torch.tensor([1]), torch.tensor([2]))
    members = (dataset.train.labels_N == 1).nonzero().flatten()
    probe = Probe(teacher)
    with torch.no_grad():
        features_ND = probe(_photographs(dataset))[1]
    probe.close()
    found = []
    for member in members:
        image = start(
            chunk, features_BD=features_ND[member][None], patch_photos=0, patch_crops=1, patch_choice="barycenter"
        )[0]
        found.append(bool(torch.allclose(image, _photographs(dataset)[member], atol=1e-4)))
    assert sum(found) == len(range(2, EACH, IPC)), "the photographs of this image's pool, and no others"


@pytest.mark.parametrize("patches", [1, 4, 9])
def test_patches_fill_the_image_the_best_first(
    patches: int, dataset: Dataset, teacher: nn.Module, start: Start
) -> None:
    """17 px do not divide by 2 or 3: patches are a pixel larger and the last ones cut off."""
    chunk = Chunk(0, torch.tensor([0]), torch.tensor([0]))
    image = start(chunk, patch_photos=0, patch_crops=1, patches_per_image=patches)[0]
    assert image.shape == (3, SIZE, SIZE)
    side = int(patches**0.5)
    patch = -(-SIZE // side)
    small = functional.interpolate(_photographs(dataset), size=patch, mode="bilinear", antialias=True)
    large = functional.interpolate(small, size=SIZE, mode="bilinear") if side > 1 else small
    members = (dataset.train.labels_N == 0).nonzero().flatten()
    with torch.no_grad():
        cost_N = functional.cross_entropy(teacher(large), dataset.train.labels_N, reduction="none")
    corner = image[:, :patch, :patch]
    shown = members[(small[members] - corner).abs().amax((1, 2, 3)).argmin()]
    torch.testing.assert_close(corner, small[shown], atol=1e-4, rtol=0)
    second = image[:, :patch, patch:]
    if patches > 1:
        width = second.shape[2] if side == 2 else patch
        gaps = (small[members][..., :width] - second[..., :width]).abs().amax((1, 2, 3))
        assert gaps.min() < 1e-4
        assert cost_N[members[gaps.argmin()]] >= cost_N[shown]


def test_a_better_crop_takes_the_photographs_place(start: Start, teacher: nn.Module) -> None:
    chunk = _whole()
    with torch.no_grad():
        whole, crops = (
            functional.cross_entropy(teacher(start(chunk, patch_photos=0, patch_crops=count)), chunk.labels_B)
            for count in (1, 6)
        )
    assert crops < whole


def test_neither_chunks_nor_streaming_change_a_start(dataset: Dataset, start: Start) -> None:
    images_NCHW, labels_N = _pictures()
    streamed = StreamedSource(lambda index: images_NCHW[index], labels_N, torch.device("cpu"), 2)
    options = {"patch_photos": 15, "patch_crops": 3, "patches_per_image": 4}
    whole = start(_whole(), **options)
    for chunk in plan_chunks(CLASSES, IPC, 100, "across-classes"):
        own = start(chunk, replace(dataset, train=streamed), **options)
        assert torch.equal(own, whole[chunk.labels_B * IPC + chunk.ordinals_B])


def test_a_class_with_too_few_photographs_repeats_patches(dataset: Dataset, start: Start) -> None:
    images_NCHW, labels_N = _pictures()
    few = ResidentSource(images_NCHW[:6], labels_N[:6], torch.device("cpu"))
    found = start(_whole(), replace(dataset, train=few), patches_per_image=4, patch_crops=1)
    assert found.shape == (CLASSES * IPC, 3, SIZE, SIZE)
    half = -(-SIZE // 2)
    torch.testing.assert_close(found[:, :, :half, :half][..., : SIZE - half], found[:, :, :half, half:])


def test_the_choice_can_be_stopped_and_tells_how_far_it_is(dataset: Dataset, teacher: nn.Module) -> None:
    told: list[int] = []

    def stop(found: int) -> None:
        told.append(found)
        if found == 2:
            raise Stopped("asked")

    chunk, probe = _whole(), Probe(teacher)
    with pytest.raises(Stopped):
        initial_images(chunk, dataset, RecoverConfig(init="patches"), IPC, 0, probe, _targets(chunk), stop)
    probe.close()
    assert told == sorted(told)
    assert set(told) == {0, 1, 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["recover.patches_per_image=3"], "do not fill a square: 1, 4, 9 or 16"),
        (["recover.patches_per_image=25"], "less than or equal to 16"),
        (
            ["recover.init=patches", "recover.patch_choice=barycenter", "recover.r_feature=0"],
            "has no barycenters to compare with",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        override(presets.get("digits"), changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["recover.patches_per_image=4"], "recover.init = 'noise': recover.patches_per_image = 4"),
        (["recover.init=patches", "recover.patch_crops=1", "recover.patch_crop_min=0.3"], "takes whole photographs"),
        (["recover.objective=start", "recover.lr=0.01"], "'start' optimises nothing: "),
        (["recover.objective=real", "recover.init=patches"], "'real' optimises nothing: "),
    ],
)
def test_options_without_effect_are_said(changes: list[str], said: str) -> None:
    assert any(said in sentence for sentence in effects.without_effect(override(RunConfig(), changes)))
