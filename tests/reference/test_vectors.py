"""The engine's own functions reproduce what the authors' functions returned (``--vectors FILE``).

All sizes are read from the file. Tolerances are norm-relative per array: 1e-5 for losses, gradients, statistics and
FKD; 1e-4 for the trace's losses and final images.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from engine import barycenter, statistics
from engine.augment import Views
from engine.losses import Coefficients, Targets, chunk_loss, collect
from engine.models.instrument import Probe, bn_layers
from engine.optimise import optimise
from engine.recipe import Recipe, learning_rates
from engine.recover import to_uint8
from engine.student_loss import kd_loss

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
TIGHT = 1e-5
TRACE = 1e-4


class TwoLayerNetwork(nn.Module):
    """The network of the vectors; sizes come from its weights."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        first, second, last = weights["conv1.weight"], weights["conv2.weight"], weights["fc.weight"]
        self.conv1 = nn.Conv2d(first.shape[1], first.shape[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first.shape[0])
        self.conv2 = nn.Conv2d(second.shape[1], second.shape[0], 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second.shape[0])
        self.fc = nn.Linear(last.shape[1], last.shape[0])
        self.load_state_dict(weights, strict=False)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.bn1(self.conv1(images_NCHW)))
        hidden = torch.relu(self.bn2(self.conv2(hidden)))
        return self.fc(hidden.mean((2, 3)))


@functools.cache
def load(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture
def vectors(pytestconfig: pytest.Config) -> dict[str, np.ndarray]:
    return load(pytestconfig.getoption("--vectors"))


@pytest.fixture
def network(vectors: dict[str, np.ndarray]) -> nn.Module:
    weights = {key[6:]: torch.from_numpy(value) for key, value in vectors.items() if key.startswith("model/")}
    return TwoLayerNetwork(weights).eval().requires_grad_(False)


def layer_names(vectors: dict[str, np.ndarray]) -> list[str]:
    return sorted(key.split("/")[1] for key in vectors if key.endswith("mean_per_class"))


def assert_near(ours: torch.Tensor | np.ndarray | float, theirs: np.ndarray, tolerance: float) -> None:
    ours_64 = np.asarray(ours.detach() if isinstance(ours, torch.Tensor) else ours, dtype=np.float64)
    assert ours_64.shape == theirs.shape
    error = np.linalg.norm((ours_64 - theirs).ravel()) / np.linalg.norm(theirs.astype(np.float64).ravel())
    assert error <= tolerance, f"norm-relative error {error:.3g} > {tolerance:.0e}"


def real_statistics(vectors: dict[str, np.ndarray], network: nn.Module, batch_averaged: bool) -> statistics.Statistics:
    images, labels = torch.from_numpy(vectors["real_images"]), torch.from_numpy(vectors["real_labels"])
    if batch_averaged:
        batches = statistics.loading_batches(labels, int(vectors["stats_batch_size"]))
    else:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(5))
        batches = list(order.split(13))
    return statistics.collect(
        network,
        labels,
        batches,
        lambda lists: [images[index] for index in lists],
        len(vectors["barycenter_init"]),
        torch.device("cpu"),
        batch_averaged,
    )


def targets_of(vectors: dict[str, np.ndarray], network: nn.Module, per_class: bool) -> Targets:
    labels = torch.from_numpy(vectors["synthetic_labels"])
    count = len(labels)
    names = layer_names(vectors)
    if per_class:
        present, group = labels.unique(return_inverse=True)
        share = torch.zeros(len(present), count)
        share[group, torch.arange(count)] = 1.0
        share /= share.sum(1, keepdim=True)
        means = [torch.from_numpy(vectors[f"stats/{name}/mean_per_class"])[present] for name in names]
        variances = [torch.from_numpy(vectors[f"stats/{name}/var_per_class_batch_averaged"])[present] for name in names]
        ordinal = torch.zeros(count, dtype=torch.int64)
        for label in present:
            ordinal[labels == label] = torch.arange(int((labels == label).sum()))
        features = torch.from_numpy(vectors["barycenter_uniform"])[labels, ordinal].float()
        return Targets(labels, group, share, tuple(means), tuple(variances), features)
    layers = [layer for _, layer in bn_layers(network)]
    return Targets(
        labels,
        torch.zeros(count, dtype=torch.int64),
        torch.full((1, count), 1 / count),
        tuple(layer.running_mean[None] for layer in layers),
        tuple(layer.running_var[None] for layer in layers),
    )


def test_network_outputs(vectors: dict[str, np.ndarray], network: nn.Module) -> None:
    logits, features, _ = Probe(network)(torch.from_numpy(vectors["real_images"]))
    assert_near(logits, vectors["logits_real"], TIGHT)
    assert_near(features, vectors["features_real"], TIGHT)


@pytest.mark.parametrize("batch_averaged", [True, False])
def test_statistics(vectors: dict[str, np.ndarray], network: nn.Module, batch_averaged: bool) -> None:
    found = real_statistics(vectors, network, batch_averaged)
    kind = "var_per_class_batch_averaged" if batch_averaged else "var_per_class_exact"
    assert [layer.name for layer in found.layers] == layer_names(vectors)
    for layer in found.layers:
        assert_near(layer.mean_CF, vectors[f"stats/{layer.name}/mean_per_class"], TIGHT)
        assert_near(layer.var_CF, vectors[f"stats/{layer.name}/{kind}"], TIGHT)
    assert_near(found.features_ND, vectors["features_real"], TIGHT)


def class_features(vectors: dict[str, np.ndarray]) -> list[np.ndarray]:
    labels = vectors["real_labels"]
    return [vectors["features_real"][labels == label].astype(np.float64) for label in np.unique(labels)]


def test_exact_w2_of_their_points(vectors: dict[str, np.ndarray]) -> None:
    ipc = vectors["barycenter_uniform"].shape[1]
    features = class_features(vectors)
    uniform = [
        barycenter.w2_squared(x, points, np.full(ipc, 1 / ipc))
        for x, points in zip(features, vectors["barycenter_uniform"], strict=True)
    ]
    assert_near(np.array(uniform), vectors["w2sq_uniform"], TIGHT)


def test_barycenter_from_their_start(vectors: dict[str, np.ndarray]) -> None:
    """From the authors' own start our alternation ends no higher than their solver."""
    for x, start, theirs in zip(
        class_features(vectors), vectors["barycenter_init"], vectors["w2sq_uniform"], strict=True
    ):
        assert barycenter.refine(x, start, 500, 0.0).w2sq <= theirs * 1.001


def test_uniform_barycenters_beat_theirs(vectors: dict[str, np.ndarray]) -> None:
    ipc = vectors["barycenter_uniform"].shape[1]
    ours = np.array(
        [barycenter.solve(x, ipc, "uniform", 60, 1e-7, 0, seed).w2sq for seed, x in enumerate(class_features(vectors))]
    )
    assert (ours <= vectors["w2sq_uniform"] * 1.001).all(), ours / vectors["w2sq_uniform"]
    assert ours.mean() < vectors["w2sq_uniform"].mean()


def test_optimized_weights_beat_theirs(vectors: dict[str, np.ndarray]) -> None:
    ipc = vectors["barycenter_uniform"].shape[1]
    ours = [barycenter.solve(x, ipc, "optimized", 60, 1e-7, 0, seed) for seed, x in enumerate(class_features(vectors))]
    values = np.array([one.w2sq for one in ours])
    assert (values < 0.5 * vectors["w2sq_weighted"]).all()
    assert values.mean() <= vectors["w2sq_uniform"].mean()
    for one in ours:
        np.testing.assert_allclose(one.weights_K.sum(), 1)
        assert (one.weights_K > 0).all()


def test_wmdd_loss(vectors: dict[str, np.ndarray], network: nn.Module) -> None:
    images = torch.from_numpy(vectors["synthetic_images"]).requires_grad_()
    targets = targets_of(vectors, network, per_class=True)
    terms = chunk_loss(
        collect(*Probe(network)(images), targets),
        targets,
        Coefficients(ce=float(vectors["r_wb"]), feature=1.0, bn=float(vectors["r_bn"])),
    )
    assert_near(terms.ce, vectors["loss/cross_entropy"], TIGHT)
    assert_near(terms.feature, vectors["loss/feature"], TIGHT)
    assert_near(terms.bn_L, vectors["loss/bn_per_layer"], TIGHT)
    assert_near(terms.total, vectors["loss/total"], TIGHT)
    assert_near(torch.autograd.grad(terms.total, images)[0], vectors["grad/total"], TIGHT)


def test_sre2l_loss(vectors: dict[str, np.ndarray], network: nn.Module) -> None:
    images = torch.from_numpy(vectors["synthetic_images"]).requires_grad_()
    targets = targets_of(vectors, network, per_class=False)
    terms = chunk_loss(
        collect(*Probe(network)(images), targets), targets, Coefficients(1.0, 0.0, float(vectors["r_bn"]))
    )
    assert_near(terms.bn_L, vectors["loss/bn_global_per_layer"], TIGHT)
    assert_near(terms.total, vectors["loss/sre2l_total"], TIGHT)
    assert_near(torch.autograd.grad(terms.total, images)[0], vectors["grad/sre2l_total"], TIGHT)


@pytest.mark.parametrize("micro_batch", [0, 5])
def test_recovery_trace(vectors: dict[str, np.ndarray], network: nn.Module, micro_batch: int) -> None:
    iterations = int(vectors["trace/iterations"])
    rates = learning_rates(float(vectors["trace/lr"]), iterations)
    assert_near(np.array(rates), vectors["trace/lr_t"], TIGHT)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    recipe = Recipe(
        targets=targets_of(vectors, network, per_class=True),
        coefficients=Coefficients(float(vectors["r_wb"]), 1.0, float(vectors["r_bn"])),
        views=Views(
            torch.from_numpy(vectors["trace/crop_ijhw"]).float(),
            torch.from_numpy(vectors["trace/flip"]).bool(),
            torch.from_numpy(vectors["trace/roll_yx"]),
        ),
        lr_T=rates,
        low_C=(0 - mean) / std,
        high_C=(1 - mean) / std,
        betas=(0.5, 0.9),
        micro_batch=micro_batch,
    )
    rows: list[list[float]] = []
    final = optimise(
        torch.from_numpy(vectors["synthetic_images"]),
        Probe(network),
        recipe,
        after_step=lambda _i, terms, _x, _s: rows.append(
            [float(terms.ce), float(terms.feature), float(terms.bn), float(terms.total)]
        ),
    )
    for column, name in enumerate(["ce", "feature", "bn", "total"]):
        assert_near(np.array([row[column] for row in rows]), vectors[f"trace/{name}"], TRACE)
    assert_near(final, vectors["trace/final_images"], TRACE)
    difference = np.abs(to_uint8(final, IMAGENET_MEAN, IMAGENET_STD).numpy().astype(int) - vectors["trace/final_uint8"])
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001


def test_fkd_loss(vectors: dict[str, np.ndarray]) -> None:
    student = torch.from_numpy(vectors["fkd/student_logits"]).requires_grad_()
    teacher = torch.from_numpy(vectors["fkd/teacher_logits_fp16"]).float()
    weights = torch.from_numpy(vectors["fkd/weights"])
    loss = kd_loss(student, teacher, float(vectors["fkd/temperature"]), weights)
    assert_near(loss, vectors["fkd/loss"], TIGHT)
    assert_near(torch.autograd.grad(loss, student)[0], vectors["fkd/grad"], TIGHT)
