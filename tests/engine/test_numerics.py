"""Closed forms and invariants of the numerics: barycenters, statistics, losses, views."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from engine import barycenter, statistics
from engine.augment import Views, apply_views, draw_views
from engine.chunks import plan_chunks
from engine.config import DataConfig, RecoverConfig, RunConfig, override
from engine.data import load_dataset
from engine.losses import Coefficients, Targets, image_moments
from engine.models import build
from engine.models.instrument import Probe, bn_layers
from engine.optimise import loss_and_gradient
from engine.recipe import Recipe, crop_bounds, learning_rates, make_recipe


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


# --- barycenters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", [1e-3, 1.0])
def test_a_refined_barycenter_cannot_be_refined_further(random: np.random.Generator, spread: float) -> None:
    """From points that all lie near the mean, or anywhere: the alternation goes on until it stands still."""
    x = np.concatenate([random.normal(centre, 0.3, (20, 5)) for centre in (-3.0, 0.0, 1.0, 4.0)])
    start = x.mean(axis=0) + spread * random.normal(size=(4, 5))
    found = barycenter.refine(x, start, 200, 1e-9)
    assert barycenter.refine(x, found.points_KD, 1, 0.0).w2sq == pytest.approx(found.w2sq, rel=1e-6)
    assert found.w2sq < 0.9 * barycenter.refine(x, start, 1, 0.0).w2sq, "one step from such a start is not the end"


def test_climbing_comes_further_than_the_plain_alternation(random: np.random.Generator) -> None:
    """In high dimensions a feature holds on to the point it has drawn: from the same starts, W2² on average."""
    x = np.maximum(
        random.normal(0.3, 0.6, (6, 40))[random.integers(0, 6, 120)] + 0.4 * random.normal(size=(120, 40)), 0
    )
    found = []
    for _ in range(5):
        start = x[random.choice(120, 8, replace=False)]
        w2sq, points = barycenter.climb(x, start, 60)
        refined = barycenter.refine(x, points, 60, 1e-9)
        assert refined.w2sq <= w2sq * (1 + 1e-9), "what climbing says is an upper bound"
        assert refined.w2sq == pytest.approx(barycenter.w2_squared(x, refined.points_KD, refined.weights_K))
        found.append((refined.w2sq, barycenter.refine(x, start, 60, 1e-9).w2sq))
    climbed, plain = np.mean(found, axis=0)
    assert climbed < 0.99 * plain


def test_one_point_is_the_mean(random: np.random.Generator) -> None:
    x = random.normal(size=(30, 4))
    found = barycenter.solve(x, 1, "uniform", 60, 1e-9, 0, 0)
    np.testing.assert_allclose(found.points_KD[0], x.mean(0))
    np.testing.assert_allclose(found.w2sq, x.var(0).sum())


def test_two_diracs() -> None:
    """Two heaps of unequal mass: free weights find them exactly; uniform ones must split the larger heap."""
    x = np.array([[0.0, 0.0]] * 3 + [[4.0, 0.0]])
    free = barycenter.solve(x, 2, "optimized", 60, 1e-9, 0, 0)
    order = free.points_KD[:, 0].argsort()
    np.testing.assert_allclose(free.points_KD[order], [[0, 0], [4, 0]])
    np.testing.assert_allclose(free.weights_K[order], [0.75, 0.25])
    assert free.w2sq == pytest.approx(0, abs=1e-12)
    uniform = barycenter.solve(x, 2, "uniform", 60, 1e-9, 0, 0)
    np.testing.assert_allclose(np.sort(uniform.points_KD[:, 0]), [0, 2])
    assert uniform.w2sq == pytest.approx(0.5 * 0.5 * 4 + 0.5 * 0.5 * 4)


def test_equal_mass_clusters(random: np.random.Generator) -> None:
    centres = np.array([[0, 0], [50, 0], [0, 50]], float)
    noise = random.normal(size=(3, 20, 2))
    x = (centres[:, None] + noise).reshape(-1, 2)
    found = barycenter.solve(x, 3, "uniform", 60, 1e-9, 0, 0)
    expected = (centres[:, None] + noise).mean(1)
    np.testing.assert_allclose(found.points_KD[np.lexsort(found.points_KD.T)], expected[np.lexsort(expected.T)])


@pytest.mark.parametrize("weights", ["uniform", "optimized"])
@pytest.mark.parametrize("ipc", [12, 24, 30])
def test_at_least_as_many_points_as_features(random: np.random.Generator, weights: str, ipc: int) -> None:
    x = random.normal(size=(12, 3))
    found = barycenter.solve(x, ipc, weights, 60, 1e-9, 0, 0)
    assert found.points_KD.shape == (ipc, 3)
    assert (found.weights_K > 0).all()
    if ipc % 12 == 0:
        assert found.w2sq == pytest.approx(0, abs=1e-10)


def test_duplicate_features(random: np.random.Generator) -> None:
    x = np.repeat(random.normal(size=(3, 2)), 10, axis=0)
    found = barycenter.solve(x, 5, "optimized", 60, 1e-9, 0, 0)
    np.testing.assert_allclose(found.weights_K.sum(), 1)
    assert barycenter.w2_squared(x, found.points_KD, found.weights_K) == pytest.approx(0, abs=1e-10)


def test_optimized_w2_is_the_k_means_objective(random: np.random.Generator) -> None:
    x = random.normal(size=(80, 5))
    found = barycenter.solve(x, 6, "optimized", 60, 1e-9, 0, 0)
    nearest = ((x[:, None] - found.points_KD[None]) ** 2).sum(2).min(1)
    assert found.w2sq == pytest.approx(nearest.mean(), rel=1e-9)
    assert found.w2sq <= barycenter.solve(x, 6, "uniform", 60, 1e-9, 0, 0).w2sq


# --- statistics -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 60])
def test_exact_statistics_do_not_depend_on_order_or_batches(batch: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(60, 3, 16, 16, generator=generator) * 3 + 5
    labels = torch.arange(60) % 4
    network = build("convnet3", 4, 16, width=8).eval()
    order = torch.randperm(60, generator=generator)
    found = statistics.collect(
        network, labels, list(order.split(batch)), lambda lists: [images[i] for i in lists], 4,
        torch.device("cpu"), False,
    )  # fmt: skip
    with torch.no_grad():
        _, features, inputs = Probe(network)(images)
    for layer, values in zip(found.layers, inputs, strict=True):
        for label in range(4):
            members = values[labels == label].double().numpy()
            np.testing.assert_allclose(layer.mean_CF[label], members.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(layer.var_CF[label], members.var((0, 2, 3)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.features_ND, features)
    again = statistics.from_tensors(statistics.to_tensors(found), found.features_ND)
    assert [layer.name for layer in again.layers] == [name for name, _ in bn_layers(network)]
    assert torch.equal(again.layers[1].var_CF, found.layers[1].var_CF)


# --- losses -----------------------------------------------------------------------------------------------


def test_moments_and_their_gradient() -> None:
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    shift = torch.randn(3, 4, dtype=torch.float64)
    single = x.float().requires_grad_()
    double = x.clone().requires_grad_()
    gradients = []
    for value, offset in ((single, shift.float()), (double, shift)):
        first, second = image_moments(value, offset)
        gradients.append(torch.autograd.grad((first.sin() + second.cos()).sum(), value)[0].double())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def _recipe(network: nn.Module, count: int, semantics: str, **extra: float) -> Recipe:
    labels = torch.arange(count) // 3
    present, group = labels.unique(return_inverse=True)
    share = torch.zeros(len(present), count)
    share[group, torch.arange(count)] = 1.0
    share /= share.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(3)
    channels = [layer.num_features for _, layer in bn_layers(network)]
    targets = Targets(
        labels, group, share,
        tuple(torch.randn(len(present), c, generator=generator) for c in channels),
        tuple(torch.rand(len(present), c, generator=generator) for c in channels),
        torch.randn(count, 8, generator=generator),
    )  # fmt: skip
    mean = torch.full((3,), 2.0)
    return Recipe(
        targets, Coefficients(1.0, 0.5, 2.0, 10.0, semantics), draw_views(2 * count, 16, 0.3, True, 3, 0, "t"),
        [0.1, 0.1], -mean, mean, (0.5, 0.9), **extra,
    )  # fmt: skip


@pytest.mark.parametrize("semantics", ["reference", "paper"])
@pytest.mark.parametrize("micro_batch", [1, 4, 8])
def test_micro_batches_are_exact(semantics: str, micro_batch: int) -> None:
    network = build("convnet3", 3, 16, width=8).eval().requires_grad_(False)
    images = torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
    probe = Probe(network)
    whole, gradient = loss_and_gradient(images, probe, _recipe(network, 9, semantics, tv=0.1, l2=0.1), 1)
    parts, in_parts = loss_and_gradient(
        images, probe, _recipe(network, 9, semantics, tv=0.1, l2=0.1, micro_batch=micro_batch), 1
    )
    torch.testing.assert_close(parts.total, whole.total, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(in_parts, gradient, rtol=1e-4, atol=1e-6)


# --- views ------------------------------------------------------------------------------------------------


def test_views_equal_interpolate_flip_roll() -> None:
    images = torch.randn(2, 3, 20, 20)
    views = Views(
        torch.tensor([[2.0, 3.0, 7.0, 15.0], [0.0, 0.0, 20.0, 20.0]]),
        torch.tensor([True, False]),
        torch.tensor([[4, 1], [0, 19]]),
    )
    found = apply_views(images, views)
    for n, (top, left, height, width) in enumerate(views.boxes_N4.int().tolist()):
        crop = images[n : n + 1, :, top : top + height, left : left + width]
        expected = functional.interpolate(crop, size=(20, 20), mode="bilinear", antialias=True, align_corners=False)
        if views.flips_N[n]:
            expected = expected.flip(3)
        expected = expected.roll(tuple(views.rolls_N2[n].tolist()), (2, 3))
        torch.testing.assert_close(found[n : n + 1], expected, rtol=1e-4, atol=1e-5)


def test_shifts_to_either_side() -> None:
    """By −3 to 3 pixels, each as often; and a negative shift is a circular one, too."""
    dataset = load_dataset(DataConfig(), 0, torch.device("cpu"))
    chunk = plan_chunks(10, 1, 10, "across-classes")[0]
    targets = Targets(chunk.labels_B, chunk.labels_B, torch.ones(1, 10), (), (), None)

    def rolls(*changes: str) -> torch.Tensor:
        settings = override(RunConfig(), ["recover.roll=3", "recover.iterations=2000", *changes])
        return make_recipe(settings, chunk, dataset, targets, torch.device("cpu")).views.rolls_N2

    assert rolls().unique().tolist() == [0, 1, 2, 3]
    shifts, counts = rolls("recover.roll_both=true").unique(return_counts=True)
    assert shifts.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert counts.max() < 1.3 * counts.min()
    images, whole = torch.randn(1, 3, 8, 8), torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    found = apply_views(images, Views(whole, torch.tensor([False]), torch.tensor([[-2, 3]])))
    torch.testing.assert_close(found, images.roll((-2, 3), (2, 3)))


def test_views_shrink_with_antialiasing() -> None:
    images = torch.randn(1, 3, 24, 24)
    whole = Views(torch.tensor([[0.0, 0.0, 24.0, 24.0]]), torch.tensor([False]), torch.zeros(1, 2, dtype=torch.int64))
    expected = functional.interpolate(images, size=(10, 10), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(apply_views(images, whole, 10), expected, rtol=1e-4, atol=1e-5)


def test_drawn_boxes_lie_inside() -> None:
    boxes = draw_views(2000, 32, 0.08, True, 5, 0, "inside").boxes_N4
    top, left, height, width = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] >= 1).all()
    assert (top + height <= 32).all()
    assert (left + width <= 32).all()
    assert 0.4 < float((height * width).mean()) / 32**2 < 0.62


# --- plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "ipc", "batch", "chunk"),
    [(7, 3, 10, "per-class"), (3, 120, 100, "per-class"), (10, 10, 100, "per-class"), (5, 4, 3, "across-classes")],
)
def test_every_image_is_in_exactly_one_chunk(classes: int, ipc: int, batch: int, chunk: str) -> None:
    chunks = plan_chunks(classes, ipc, batch, chunk)
    pairs = [pair for one in chunks for pair in zip(one.labels_B.tolist(), one.ordinals_B.tolist(), strict=True)]
    assert sorted(pairs) == [(label, ordinal) for label in range(classes) for ordinal in range(ipc)]
    for one in chunks:
        if chunk == "per-class":
            assert all(int((one.labels_B == label).sum()) == ipc for label in one.labels_B.unique())
            assert len(one.labels_B) <= max(batch, ipc)
        else:
            assert len(one.labels_B.unique()) == len(one.labels_B) <= batch


def test_curricula_fall_from_one_to_the_bound() -> None:
    for curriculum in ("step", "linear", "cosine"):
        config = RecoverConfig(iterations=100, curriculum=curriculum, milestone=0.5, crop_min=0.08)
        bounds = crop_bounds(config)
        assert float(bounds[0]) == pytest.approx(1.0)
        assert torch.allclose(bounds[50:], torch.tensor(0.08))
        assert (bounds.diff() <= 1e-6).all()


def test_cosine_learning_rate() -> None:
    rates = learning_rates(0.25, 10)
    assert rates[0] == 0.25
    assert rates[5] == pytest.approx(0.125)
    assert all(later < earlier for earlier, later in pairwise(rates))
