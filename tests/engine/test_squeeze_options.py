"""The teacher's training beyond the plain one: schedules, automatic augmentation, erasing, mixing, the average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from engine import effects, models, rundir
from engine.augment import apply_views, draw_views
from engine.averaging import average_of, restore_average, state_of
from engine.config import RunConfig, SqueezeConfig, TrainConfig, override
from engine.context import Context
from engine.data import load_dataset, normalise
from engine.errors import Stopped
from engine.policies import mixed, teacher_inputs
from engine.squeeze import learning_rate, make_optimiser, squeeze

SIZE, IMAGES, STEPS = 16, 6, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
POLICIES = [
    "randaugment", "trivialaugment", "augmix", "autoaugment", "autoaugment-cifar10", "autoaugment-svhn",
]  # fmt: skip


def config(**options: Any) -> SqueezeConfig:
    return SqueezeConfig.model_validate(options)


def seen(settings: SqueezeConfig, numbers: list[int], epoch: int = 0, seed: int = 5) -> torch.Tensor:
    pixels = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), generator=pixels, dtype=torch.uint8)
    views = draw_views(IMAGES, SIZE, 0.3, True, 0, seed, "squeeze", epoch)
    index = torch.tensor(numbers)
    return teacher_inputs(settings, images_NCHW[index], views[index], numbers, MEAN, STD, seed, epoch)


@pytest.mark.parametrize(
    ("options", "scheduler"),
    [
        ({"schedule": "exponential", "gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8)),
        ({"schedule": "step", "gamma": 0.5, "step_epochs": 2}, lambda o: lr_scheduler.StepLR(o, 2, 0.5)),
    ],
    ids=["exponential", "step"],
)
def test_falling_rates_are_those_of_pytorchs_schedulers(options: dict[str, Any], scheduler: Any) -> None:
    settings = config(**options, lr=0.4, epochs=7, warmup_epochs=2)
    theirs = scheduler(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.4))
    assert learning_rate(settings, STEPS, STEPS) == pytest.approx(0.4 * 6 / 10), "the warm-up is linear as ever"
    for epoch in range(2, 7):
        rates = {learning_rate(settings, epoch * STEPS + step, STEPS) for step in range(STEPS)}
        assert list(rates) == pytest.approx(theirs.get_last_lr())
        theirs.optimizer.step()
        theirs.step()


def test_nothing_asked_for_changes_nothing() -> None:
    pixels = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), generator=pixels, dtype=torch.uint8)
    views = draw_views(IMAGES, SIZE, 0.3, True, 0, 5, "squeeze", 0)
    plain = apply_views(normalise(images_NCHW, MEAN, STD), views)
    assert torch.equal(seen(config(), list(range(IMAGES))), plain)
    labels = torch.arange(IMAGES)
    inputs, same = mixed(config(), plain, labels, IMAGES, 1)
    assert inputs is plain
    assert same is labels
    assert isinstance(make_optimiser(config(), nn.Linear(1, 1)), torch.optim.SGD)


@pytest.mark.parametrize("name", POLICIES)
def test_augmentation_is_a_function_of_seed_epoch_and_image(name: str) -> None:
    settings = config(augment=name, erase=0.5)
    before = torch.random.get_rng_state()
    whole = seen(settings, list(range(IMAGES)))
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's randomness is touched"
    assert torch.equal(seen(settings, [4, 1]), whole[[4, 1]]), "whatever the batch"
    assert not torch.equal(whole, seen(config(), list(range(IMAGES))))
    assert not torch.equal(whole, seen(settings, list(range(IMAGES)), epoch=1))
    assert not torch.equal(whole, seen(settings, list(range(IMAGES)), seed=6))


@pytest.mark.parametrize(
    ("weak", "strong"),
    [
        ({"augment": "randaugment", "randaugment_magnitude": 1}, {"augment": "randaugment"}),
        ({"augment": "augmix", "augmix_severity": 1}, {"augment": "augmix", "augmix_severity": 10}),
    ],
    ids=["randaugment", "augmix"],
)
def test_strength_is_heeded(weak: dict[str, Any], strong: dict[str, Any]) -> None:
    every = list(range(IMAGES))
    assert not torch.equal(seen(config(**weak), every), seen(config(**strong), every))


def test_an_erased_rectangle_is_the_mean_colour() -> None:
    plain = seen(config(), list(range(IMAGES)))
    erased = seen(config(erase=1.0), list(range(IMAGES)))
    gone = (erased == 0).all(1) & (plain != 0).any(1)
    for gone_HW, image, other in zip(gone, erased, plain, strict=True):
        rows, columns = gone_HW.any(1).nonzero().flatten(), gone_HW.any(0).nonzero().flatten()
        box = gone_HW[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.all(), "a rectangle"
        assert 0.02 * SIZE**2 * 0.5 < box.numel() < 0.34 * SIZE**2 * 1.2
        assert torch.equal(image[:, ~gone_HW], other[:, ~gone_HW]), "the rest is as it was"


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}], ids=str)
def test_mixed_images_have_shares_of_two_classes(options: dict[str, float]) -> None:
    inputs = torch.eye(4)[:, :, None, None].expand(4, 4, SIZE, SIZE)[:, :3].contiguous()
    before = torch.random.get_rng_state()
    images, shares = mixed(config(**options), inputs, torch.arange(4), 4, 11)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))
    torch.testing.assert_close(images.mean((2, 3)), shares[:, :3]), "pixels are mixed as labels are"
    assert not torch.equal(shares, torch.eye(4))
    assert torch.equal(mixed(config(**options), inputs, torch.arange(4), 4, 11)[0], images)


def test_the_average_is_the_exponential_mean_and_is_kept() -> None:
    network = nn.Linear(2, 2, bias=False)
    averaged = average_of(network, 0.75)
    assert averaged is not None
    assert average_of(network, 0.0) is None
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(network.weight, value)
        averaged.update_parameters(network)
    expected = torch.full((2, 2), 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 3)
    torch.testing.assert_close(averaged.module.weight.detach(), expected)
    other = average_of(nn.Linear(2, 2, bias=False), 0.75)
    assert other is not None
    restore_average(other, {"network/weight": torch.zeros(2, 2), **state_of(averaged)})
    assert torch.equal(other.module.weight, averaged.module.weight)
    assert state_of(None) == {}


def test_a_stopped_training_ends_as_an_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything on that draws numbers or remembers steps, and with the average as the teacher."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    every = (
        "squeeze.augment=augmix", "squeeze.erase=0.5", "squeeze.mixup=0.2", "squeeze.cutmix=1", "squeeze.ema=0.8",
        "squeeze.ema_every=2", "squeeze.warmup_epochs=1", "squeeze.optimizer=rmsprop", "squeeze.schedule=step",
    )  # fmt: skip
    small = ("data.max_per_class=1", "teacher.width=4", "squeeze.epochs=3", "squeeze.batch_size=5")
    settings = override(RunConfig(), [*small, *every])
    dataset = load_dataset(settings.data, 0, torch.device("cpu"))

    def trained(run: rundir.RunDir, stop_after: int = 10**9) -> nn.Module:
        asked = iter(range(10**9))
        ctx = Context(
            settings, torch.device("cpu"), run, lambda _event: None, lambda: next(asked) >= stop_after, lambda: True
        )
        network = models.build_teacher(settings, 10)
        models.initialise(network, 0, "teacher")
        squeeze(ctx, dataset, network, "work")
        return network

    whole = trained(rundir.create(settings)).state_dict()
    run = rundir.create(settings)
    with pytest.raises(Stopped):
        trained(run, stop_after=6)
    resumed = trained(run).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_options_that_came_later_leave_what_was_kept_before_findable() -> None:
    """Keys of the cache and of checkpoints are made of these values: they are as they were without such options."""
    assert config().determinants() == {
        "epochs": 50, "batch_size": 32, "lr": 0.025, "momentum": 0.9, "weight_decay": 1e-4, "warmup_epochs": 0,
        "label_smoothing": 0.0, "crop_min": 0.08, "flip": True, "keep": "last",
    }  # fmt: skip
    assert config(erase=0.1).determinants()["erase"] == 0.1
    assert "accumulate" not in TrainConfig().determinants()
    assert TrainConfig(accumulate=2).determinants()["accumulate"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["squeeze.gamma=0.5"], "squeeze.gamma = 0.5"),
        (["squeeze.schedule=exponential", "squeeze.step_epochs=3"], "squeeze.step_epochs = 3"),
        (["squeeze.augment=augmix", "squeeze.randaugment_magnitude=3"], "squeeze.randaugment_magnitude = 3"),
        (["squeeze.augmix_severity=5"], "squeeze.augmix_severity = 5"),
        (["squeeze.optimizer=adamw", "squeeze.momentum=0.5"], "squeeze.momentum = 0.5"),
        (["squeeze.ema_every=32"], "squeeze.ema_every = 32"),
        (["recover.verify_every=5"], "recover.verify_every = 5"),
    ],
)
def test_options_without_effect_are_named(changes: list[str], said: str) -> None:
    assert said in "\n".join(effects.without_effect(override(RunConfig(), changes)))
