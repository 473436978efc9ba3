"""Several teachers: losses and labels are means over them, and each keeps what is its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import committee, effects, presets, rundir
from engine.augment import draw_views
from engine.config import RunConfig, override
from engine.errors import ConfigError
from engine.losses import Coefficients, Targets
from engine.models import build
from engine.models.checkpoint import member_config
from engine.models.instrument import Probe, bn_layers, classifier_layer
from engine.optimise import loss_and_gradient
from engine.recipe import Recipe

IMAGES = 6


def _targets(network: nn.Module, seed: int) -> Targets:
    random = torch.Generator().manual_seed(seed)
    channels = [layer.num_features for _, layer in bn_layers(network)]
    labels_B = torch.arange(IMAGES) % 2
    share_GB = torch.nn.functional.one_hot(labels_B).T.float() / 3
    return Targets(
        labels_B, labels_B, share_GB,
        tuple(torch.randn(2, count, generator=random) for count in channels),
        tuple(torch.rand(2, count, generator=random) for count in channels),
        torch.randn(IMAGES, classifier_layer(network).in_features, generator=random),
    )  # fmt: skip


def _recipe(targets: Targets, **extra: float) -> Recipe:
    mean = torch.full((3,), 2.0)
    return Recipe(
        targets, Coefficients(1.0, 0.5, 2.0), draw_views(2, 16, 0.3, True, 3, 0, "t"), [0.1, 0.1], -mean, mean,
        (0.5, 0.9), **extra,
    )  # fmt: skip


@pytest.mark.parametrize("extra", [{}, {"micro_batch": 4}, {"tv": 0.1, "l2": 0.1}])
def test_loss_and_gradient_are_the_members_means(extra: dict[str, float]) -> None:
    networks = [build("convnet3", 2, 16, width=4).eval(), build("convnet4", 2, 16, width=8).eval()]
    probes = [Probe(network.requires_grad_(False)) for network in networks]
    targets = [_targets(network, seed) for seed, network in enumerate(networks)]
    images = torch.randn(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    recipe = _recipe(targets[0], **extra)
    steps = [
        loss_and_gradient(images, probe, replace(recipe, targets=own), 1)
        for probe, own in zip(probes, targets, strict=True)
    ]
    terms, gradient = loss_and_gradient(images, probes[0], replace(recipe, others=((probes[1], targets[1]),)), 1)
    torch.testing.assert_close(gradient, (steps[0][1] + steps[1][1]) / 2)
    for name in ("total", "ce", "feature", "bn"):
        mean = (getattr(steps[0][0], name) + getattr(steps[1][0], name)) / 2
        torch.testing.assert_close(getattr(terms, name), mean)
    assert len(terms.bn_L) == 3 + 4
    torch.testing.assert_close(terms.bn_L.sum(), terms.bn), "the layers' shares add up to the term"


def test_a_committee_labels_with_the_mean_of_its_logits() -> None:
    first, second = (build(arch, 3, 16, width=4).eval() for arch in ("convnet3", "convnet4"))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        mean = committee.MeanLogits([first, second])(images)
        torch.testing.assert_close(mean, (first(images) + second(images)) / 2)
    assert committee.voters(first, []) is first


def test_members_are_named_by_architecture_checkpoint_or_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "teacher=1.pth"
    checkpoint.write_bytes(b"")
    earlier = rundir.create(presets.get("digits"))
    settings = override(presets.get("digits"), ["teacher.width=16"])

    def teacher(entry: str) -> tuple[str, str, str, int]:
        found = member_config(settings, entry).teacher
        return found.arch, found.source, found.path, found.width

    assert teacher("convnet4") == ("convnet4", "train", "", 16)
    assert teacher(f"resnet18 = {checkpoint}") == ("resnet18", "checkpoint", str(checkpoint), 16)
    assert teacher(f"convnet3={earlier.id}") == ("convnet3", "run", earlier.id, 16)
    assert teacher("convnet3=nowhere.pth")[1] == "checkpoint", "which is then refused by its name"


def test_a_resnet_among_them_has_the_run_s_stem() -> None:
    settings = override(presets.get("imagenette64-peer"), [])
    assert settings.teacher.stem == "standard"
    for arch in ("resnet34", "wide_resnet50_2"):
        assert member_config(settings, arch).teacher.stem == "standard"
    assert member_config(settings, "convnet4").teacher.stem == "auto"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["teacher.committee=convnet3"], "its vote would count twice"),
        (['teacher.committee=["convnet4", "convnet4"]'], "its vote would count twice"),
        (["teacher.committee=convnet4="], "names no teacher"),
        (["teacher.source=run", "teacher.path=x", "teacher.committee=convnet4"], "write convnet4=PATH"),
        (["train.arch=convnet3", "train.students=convnet4"], "leave one of them empty"),
        (["train.students=convnet4, convnet4"], "twice"),
        (["train.augment=randaugment"], "train.labels = 'hard'"),
    ],
)
def test_what_makes_no_sense_is_refused(changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(presets.get("digits"), changes)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["train.gt_weight=0.5"], "train.gt_weight = 0.5"),
        (["train.loss=mse-gt", "train.temperature=4"], "train.temperature = 4.0"),
        (["train.labels=hard", "train.loss=mse-gt"], "train.loss = 'mse-gt'"),
        (["train.labels=hard", "train.randaugment_ops=3"], "train.randaugment_ops = 3"),
        (["train.momentum=0.5"], "train.momentum = 0.5"),
    ],
)
def test_options_of_students_without_effect_are_named(changes: list[str], said: str) -> None:
    assert said in "\n".join(effects.without_effect(override(presets.get("digits"), changes)))


def test_lists_are_written_with_or_without_brackets() -> None:
    plain = override(RunConfig(), ["train.students=a, b"])
    assert plain == override(RunConfig(), ['train.students=["a", "b"]'])
    assert plain.student_archs == ("a", "b")
    assert RunConfig().student_archs == ("convnet3",)
