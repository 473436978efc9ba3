"""What students are taught by: closed forms of the losses, schedules, and RandAugment as a function of its seed."""

from __future__ import annotations

import math

import pytest
import torch

from engine.config import TrainConfig
from engine.data.source import ResidentSource
from engine.randaugment import RandAugmented
from engine.student_loss import hard_loss, kd_loss, logit_mse, soft_cross_entropy, soft_loss
from engine.train import learning_rate, make_optimiser

TEACHER_NC = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.5, 0.0]])


def student() -> torch.Tensor:
    return torch.tensor([[0.3, 0.1, 0.0], [-1.0, 0.2, 0.7]], requires_grad=True)


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_softened_cross_entropy_has_the_divergences_gradient(temperature: float) -> None:
    ours, theirs = student(), student()
    divergence, entropy = kd_loss(ours, TEACHER_NC, temperature), soft_cross_entropy(theirs, TEACHER_NC, temperature)
    soft = torch.softmax(TEACHER_NC / temperature, dim=1)
    torch.testing.assert_close(entropy - divergence, -(soft * soft.log()).sum(1).mean())
    for gradient, other in zip(
        torch.autograd.grad(divergence, ours), torch.autograd.grad(entropy, theirs), strict=True
    ):
        torch.testing.assert_close(gradient, other)


def test_squared_error_of_logits() -> None:
    torch.testing.assert_close(logit_mse(TEACHER_NC + 2.0, TEACHER_NC), torch.tensor(4.0))


@pytest.mark.parametrize("kind", ["kl", "mse-gt", "soft-ce"])
def test_an_image_without_weight_does_not_count(kind: str) -> None:
    alone = soft_loss(kind, student()[:1], TEACHER_NC[:1], 4.0, None)  # type: ignore[arg-type]
    both = soft_loss(kind, student(), TEACHER_NC, 4.0, torch.tensor([1.0, 0.0]))  # type: ignore[arg-type]
    torch.testing.assert_close(both, alone), "the weight over the mean weight, averaged over both"


def test_mixed_classes_count_by_their_shares() -> None:
    labels, partners = torch.tensor([0, 1]), torch.tensor([2, 1])
    loss = hard_loss(TEACHER_NC, labels, partners, torch.tensor([0.25, 0.25]))
    log = torch.log_softmax(TEACHER_NC, dim=1)
    expected = -(0.25 * log[0, 0] + 0.75 * log[0, 2] + log[1, 1]) / 2
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("cosine", 0, [1.0, 0.75, 0.25]),
        ("linear", 0, [1.0, 2 / 3, 1 / 3]),
        ("constant", 0, [1.0, 1.0, 1.0]),
        ("smoothed-cosine", 0, [1.0, (1 + math.cos(math.pi / 6)) / 2, 0.75]),
        ("cosine", 1, [1.0, 1.0, 0.5]),
        ("linear", 2, [0.5, 1.0, 1.0]),
    ],
)
def test_rates_of_the_epochs(schedule: str, warmup: int, rates: list[float]) -> None:
    config = TrainConfig.model_validate({"schedule": schedule, "lr": 1.0, "epochs": 3, "warmup_epochs": warmup})
    assert [learning_rate(config, epoch) for epoch in range(3)] == pytest.approx(rates)


def test_the_optimiser_that_was_asked_for() -> None:
    network = torch.nn.Linear(2, 2)
    sgd = make_optimiser(TrainConfig(optimizer="sgd", momentum=0.5, weight_decay=0.1), network)
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.param_groups[0]["momentum"], sgd.param_groups[0]["weight_decay"]) == (0.5, 0.1)
    assert isinstance(make_optimiser(TrainConfig(), network), torch.optim.AdamW)


def test_randaugment_depends_on_seed_epoch_and_image_alone() -> None:
    images_NCHW = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = ResidentSource(images_NCHW, torch.arange(6), torch.device("cpu"))
    augmented = RandAugmented(source, 2, 9, 5)
    before = torch.random.get_rng_state()
    whole = augmented.batch(torch.arange(6))
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's randomness is touched"
    assert whole.dtype == torch.uint8
    assert torch.equal(augmented.batch(torch.tensor([4, 1])), whole[[4, 1]])
    assert torch.equal(torch.cat(list(augmented.batches([torch.tensor([5]), torch.tensor([0, 2])]))), whole[[5, 0, 2]])
    assert not torch.equal(whole, images_NCHW)
    augmented.epoch = 1
    assert not torch.equal(augmented.batch(torch.arange(6)), whole)
    assert not torch.equal(RandAugmented(source, 2, 9, 6).batch(torch.arange(6)), whole)
