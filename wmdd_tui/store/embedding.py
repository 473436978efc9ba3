"""The distribution that distillation imitates, and how near the synthetic images come to it.

Projection of features to the plane (scikit-learn), and figures of each class that need no projection: the exact squared
2-Wasserstein distance to the real features (POT), and coverage (Naeem et al., ICML 2020): the share of real images
whose neighbourhood, the ball that reaches to its k-th nearest real image of the class, holds a synthetic one.

Shapes: N real images, M synthetic images, K points of a barycenter, D the length of a feature.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from wmdd_tui.store.features import Array, ClassFeatures

Method = Literal["pca", "t-sne"]
NEIGHBOURS = 5
#: Pivots of the network simplex: no class reaches them, and an answer short of the optimum would be no exact one.
MOST_PIVOTS = 100_000_000
#: What scikit-learn takes by default, where there are points enough.
PERPLEXITY = 30.0
PERPLEXITY_SHARE = 3.0


@dataclass(frozen=True)
class Figures:
    """One class: how many images, W2² to the real features, coverage of them in percent.

    ``w2_random`` is the distance of as many random real images, ``w2_barycenter`` that of the barycenter, the least
    that so many points can reach (None without barycenters).
    """

    label: int
    name: str
    real: int
    images: int
    w2_images: float
    w2_random: float
    w2_barycenter: float | None
    coverage: float
    coverage_random: float


@dataclass(frozen=True)
class Projected:
    """One class in the plane; ``points_K2`` has no rows without barycenters."""

    label: int
    name: str
    real_N2: Array
    images_M2: Array
    points_K2: Array


def w2_squared(real_ND: Array, points_KD: Array, weights_K: Array) -> float:
    """Exact squared 2-Wasserstein distance between the uniform measure on real features and weighted points."""
    # POT would load every array library it finds, PyTorch among them, for seconds and half a gigabyte.
    os.environ.setdefault("POT_BACKEND_DISABLE_PYTORCH", "1")
    import ot

    uniform_N = np.full(len(real_ND), 1 / len(real_ND))
    cost_NK = ot.dist(real_ND, points_KD)
    return float(ot.emd2(uniform_N, weights_K, cost_NK, numItermax=MOST_PIVOTS))


def coverage(real_ND: Array, images_MD: Array, neighbours: int = NEIGHBOURS) -> float:
    """Percent of the real images with a synthetic one no farther than their k-th nearest real neighbour."""
    from sklearn.neighbors import NearestNeighbors  # a second to import

    nearest = NearestNeighbors(n_neighbors=min(neighbours, len(real_ND) - 1) + 1).fit(real_ND)
    radius_N = nearest.kneighbors(real_ND)[0][:, -1]  # its own distance, 0, is the first
    distance_N = NearestNeighbors(n_neighbors=1).fit(images_MD).kneighbors(real_ND)[0][:, 0]
    return float(100 * (distance_N <= radius_N).mean())


def figures_of(one: ClassFeatures, seed: int) -> Figures:
    """All figures of a class; the random real images are drawn by ``seed``."""
    count = len(one.images_MD)
    random = np.random.default_rng([seed, one.label])
    chosen = random.permutation(np.resize(np.arange(len(one.real_ND)), max(count, len(one.real_ND))))[:count]
    barycenter = None
    if one.points_KD is not None and one.weights_K is not None:
        barycenter = w2_squared(one.real_ND, one.points_KD, one.weights_K)
    return Figures(
        one.label,
        one.name,
        len(one.real_ND),
        count,
        w2_squared(one.real_ND, one.images_MD, one.weights_M),
        w2_squared(one.real_ND, one.real_ND[chosen], np.full(count, 1 / count)),
        barycenter,
        coverage(one.real_ND, one.images_MD),
        coverage(one.real_ND, one.real_ND[chosen]),
    )


def thinned(one: ClassFeatures, most_real: int, seed: int) -> ClassFeatures:
    """At most so many of the class's real images, drawn by the seed; all others as they are."""
    if len(one.real_ND) <= most_real:
        return one
    kept = np.sort(np.random.default_rng([seed, one.label, 1]).permutation(len(one.real_ND))[:most_real])
    return ClassFeatures(
        one.label, one.name, one.real_ND[kept], one.images_MD, one.weights_M, one.points_KD, one.weights_K
    )


def project(classes: Sequence[ClassFeatures], method: Method, seed: int) -> list[Projected]:
    """All classes in one plane. Raises InputError where there are too few points.

    PCA finds its axes in the real images alone, so that synthetic ones cannot bend the picture; t-SNE knows no axes and
    arranges all points together.
    """
    none = np.zeros((0, classes[0].real_ND.shape[1]))
    parts = [
        part
        for one in classes
        for part in (one.real_ND, one.images_MD, none if one.points_KD is None else one.points_KD)
    ]
    everything = np.concatenate(parts)
    if len(everything) < 3:
        raise InputError(f"{len(everything)} points are too few to project", "take more classes")
    if method == "pca":
        flat = _principal(np.concatenate([one.real_ND for one in classes]), everything)
    else:
        flat = _neighbourly(everything, seed)
    places = np.split(flat, np.cumsum([len(part) for part in parts])[:-1])
    return [Projected(one.label, one.name, *places[3 * index : 3 * index + 3]) for index, one in enumerate(classes)]


def _principal(real_ND: Array, everything_PD: Array) -> Array:
    from sklearn.decomposition import PCA

    axes = PCA(n_components=min(2, *real_ND.shape), svd_solver="full").fit(real_ND)
    flat: npt.NDArray[Any] = axes.transform(everything_PD)
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def _neighbourly(everything_PD: Array, seed: int) -> Array:
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(everything_PD) - 1) / PERPLEXITY_SHARE)
    flat: Array = TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(everything_PD)
    return flat.astype(np.float64)
