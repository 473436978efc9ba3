"""Wasserstein barycenters of the features of one class (paper: Liu et al., ICCV 2025; Cuturi & Doucet 2014).

For a single measure Σ_i δ(x_i)/n the problem has a simple form:

- weights free (``"optimized"``): each x_i goes to its nearest support point, so the optimum is k-means and the
  weights are the shares of the cells;
- weights uniform: it is equal-mass k-means: exact optimal transport plan, then barycentric projection
  ``b_j = (1/w_j) Σ_i T_ij x_i``, alternated until W2² no longer falls. In high dimensions that stands still early, for
  each feature has drawn its own point towards itself; ``climb`` takes this into account and comes further.

Both start from several draws of the data and keep the best, where the authors start from one unseeded N(0, I) draw.
What is returned has been refined and judged in float64. Torch-free. Shapes: n features, K = IPC support points,
D dimensions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import ot
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import ThreadpoolController

Array = npt.NDArray[np.float64]
#: In single or double precision.
Floats = npt.NDArray[np.float32] | Array

#: A class whose n × K exceeds this is large: its starts are compared on a sample of so many features a point.
LARGE, SAMPLE = 20_000, 10
#: A class whose n × K does not exceed this is tiny: a start costs some milliseconds, and the luck of each counts more.
TINY = 4_000
#: Starts of tiny, small and large classes, by weights.
STARTS = {"uniform": (32, 8, 2), "optimized": (10, 10, 2)}
#: ``climb`` corrects fully for a feature's part in its own point, then by half; a step that gains less than this share
#: of W2² ends a correction.
CORRECTIONS = (1.0, 0.5)
CLIMBING = 2e-3


@dataclass(frozen=True)
class Barycenter:
    """Support points (K, D), their weights (K,) summing to one, and the exact W2² to the features."""

    points_KD: Array
    weights_K: Array
    w2sq: float


def w2_squared(features_nD: Array, points_KD: Array, weights_K: Array) -> float:
    """Exact squared 2-Wasserstein distance of the uniform measure on the features to the weighted points."""
    mass_n = np.full(len(features_nD), 1 / len(features_nD))
    return _transport(mass_n, weights_K, ot.dist(features_nD, points_KD))[0]


def _transport(mass_n: Array, weights_K: Array, cost_nK: Floats) -> tuple[float, Array]:
    """Cost of the optimal plan, and the plan."""
    plan_nK = ot.emd(mass_n, weights_K, cost_nK, numItermax=2_000_000, center_dual=False, check_marginals=False)
    return float(np.vdot(plan_nK, cost_nK)), plan_nK


def solve(
    features_nD: Array, ipc: int, weights: str, iterations: int, tolerance: float, restarts: int, seed: int
) -> Barycenter:
    """Barycenter of one class.

    ``weights`` is "uniform" or "optimized". More points than features repeats features. Raises ValueError for an
    empty class.
    """
    features_nD = np.ascontiguousarray(features_nD, dtype=np.float64)
    if not len(features_nD):
        raise ValueError("a barycenter needs at least one feature")
    size = len(features_nD) * ipc
    starts = _seeds(seed, restarts or STARTS[weights][(size > TINY) + (size > LARGE)])
    if weights == "optimized":
        return _optimized(features_nD, ipc, iterations, starts)
    return _uniform(features_nD, ipc, iterations, tolerance, starts)


def _seeds(seed: int, count: int) -> list[int]:
    return [int(value) for value in np.random.SeedSequence(seed).generate_state(count)]


def _k_means(features_nD: Array, ipc: int, iterations: int, seed: int) -> Array:
    with warnings.catch_warnings():
        # Fewer distinct features than points is a case we handle, not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(
            KMeans(ipc, n_init=1, max_iter=iterations, random_state=seed).fit(features_nD).cluster_centers_
        )


def _optimized(features_nD: Array, ipc: int, iterations: int, starts: Sequence[int]) -> Barycenter:
    distinct_uD, inverse_n = np.unique(features_nD, axis=0, return_inverse=True)
    if len(distinct_uD) <= ipc:
        return _repeated(distinct_uD, np.bincount(inverse_n.reshape(-1)) / len(features_nD), ipc)
    best: Barycenter | None = None
    for start in starts:
        points_KD = _k_means(features_nD, ipc, max(iterations, 300), start)
        found = _cells(features_nD, points_KD)
        if best is None or found.w2sq < best.w2sq:
            best = found
    assert best is not None
    return best


def _cells(features_nD: Array, points_KD: Array) -> Barycenter:
    """Centres and shares of the nearest-point cells; an empty cell is re-seeded at the worst-served feature."""
    for _ in range(2 * len(points_KD)):
        cost_nK = ot.dist(features_nD, points_KD)
        cell_n = cost_nK.argmin(axis=1)
        counts_K = np.bincount(cell_n, minlength=len(points_KD))
        empty = np.flatnonzero(counts_K == 0)
        if not len(empty):
            break
        points_KD = points_KD.copy()
        points_KD[empty[0]] = features_nD[cost_nK.min(axis=1).argmax()]
    sums_KD = np.zeros_like(points_KD)
    np.add.at(sums_KD, cell_n, features_nD)
    centres_KD = sums_KD / counts_K[:, None]
    weights_K = counts_K / len(features_nD)
    return Barycenter(centres_KD, weights_K, w2_squared(features_nD, centres_KD, weights_K))


def _repeated(distinct_uD: Array, mass_u: Array, ipc: int) -> Barycenter:
    """At least as many points as distinct features: repeat them and share their mass, so W2² is zero."""
    index_K = np.arange(ipc) % len(distinct_uD)
    copies_u = np.bincount(index_K, minlength=len(distinct_uD))
    return Barycenter(distinct_uD[index_K], (mass_u / copies_u)[index_K], 0.0)


def _uniform(features_nD: Array, ipc: int, iterations: int, tolerance: float, starts: Sequence[int]) -> Barycenter:
    if ipc >= len(features_nD):
        # Cyclic repetition is the optimum when n divides K, and the start otherwise.
        return refine(features_nD, features_nD[np.arange(ipc) % len(features_nD)], iterations, tolerance)
    single_nD: Floats = features_nD.astype(np.float32)
    sample_nD = single_nD
    if len(features_nD) * ipc > LARGE:
        sample_nD = _drawn(single_nD, SAMPLE * ipc, sum(starts))
    found = [climb(sample_nD, _drawn(sample_nD, ipc, start), iterations) for start in starts]
    _, points_KD = min(found, key=lambda one: one[0])
    if sample_nD is not single_nD:
        _, points_KD = climb(single_nD, points_KD, iterations)
    return refine(features_nD, points_KD.astype(np.float64), iterations, tolerance)


def _drawn(features_nD: Floats, count: int, seed: int) -> Floats:
    """At most ``count`` features, each once."""
    order_n = np.random.default_rng(seed).permutation(len(features_nD))
    drawn_nD: Floats = features_nD[order_n[:count]]
    return drawn_nD


def _costs(features_nD: Floats, squares_n: Floats, points_KD: Floats) -> Floats:
    """Squared distances (n, K); ``squares_n`` are those of the features from the origin."""
    cost_nK: Floats = features_nD @ (-2 * points_KD.T)
    cost_nK += squares_n[:, None]
    cost_nK += np.einsum("kd,kd->k", points_KD, points_KD)
    return np.maximum(cost_nK, 0, out=cost_nK)


def _balanced(cost_nK: Floats) -> tuple[float, Array]:
    """The optimal plan between features and points of equal mass, and its cost."""
    features, points = cost_nK.shape
    return _transport(np.full(features, 1 / features), np.full(points, 1 / points), cost_nK)


def _projected(features_nD: Floats, plan_nK: Array) -> Floats:
    """Each point of equal mass in the mean of what a plan brings to it."""
    points_KD: Floats = (plan_nK.T * plan_nK.shape[1]).astype(features_nD.dtype) @ features_nD
    return points_KD


def climb(features_nD: Floats, points_KD: Floats, iterations: int) -> tuple[float, Floats]:
    """The alternation with costs that know that points move along: W2² (an upper bound of it) and points.

    Where features x of point a and y of point b change places and both points follow, n W2² changes by
    ``c_xb + c_ya - c_xa - c_yb - (2/m) ‖x - y‖²`` with m = n/K features a point. Half the sum of the four costs is what
    ‖x - y‖² is on average, so the cost to a feature's own point counts 1 + 2/m times as much as to another: it would be
    farther away had the feature not drawn the point. Many change places at once, so a step may also lose; then the best
    so far is kept.
    """
    squares_n = np.einsum("nd,nd->n", features_nD, features_nD)

    def moved(cost_nK: Floats) -> tuple[float, Floats, Array, Floats]:
        """W2² of a plan whose points have followed it, these points, the plan, and its costs."""
        _, plan_nK = _balanced(cost_nK)
        points_KD = _projected(features_nD, plan_nK)
        cost_nK = _costs(features_nD, squares_n, points_KD)
        return float(np.vdot(plan_nK, cost_nK)), points_KD, plan_nK, cost_nK

    best, left = moved(_costs(features_nD, squares_n, points_KD)), list(CORRECTIONS)
    for _ in range(iterations - 1):
        _, _, plan_nK, cost_nK = best
        found = moved(cost_nK * (1 + 2 * left[0] * len(points_KD) * plan_nK))
        gained = best[0] - found[0]
        if gained > 0:
            best = found
        if gained <= CLIMBING * best[0]:
            del left[0]
            if not left:
                break
    return best[0], best[1]


def refine(features_nD: Array, points_KD: Array, iterations: int, tolerance: float) -> Barycenter:
    """Alternate exact plan and barycentric projection from given points, uniform weights, until W2² settles."""
    squares_n = np.einsum("nd,nd->n", features_nD, features_nD)
    w2sq, plan_nK = _balanced(_costs(features_nD, squares_n, points_KD))
    for _ in range(iterations):
        moved_KD = _projected(features_nD, plan_nK).astype(np.float64, copy=False)
        gained = float(np.square(moved_KD - points_KD).sum()) / len(points_KD)  # by points that follow this plan
        points_KD = moved_KD
        if gained <= tolerance * w2sq:  # too little for another plan
            w2sq -= gained
            break
        w2sq, plan_nK = _balanced(_costs(features_nD, squares_n, points_KD))
    return Barycenter(points_KD, np.full(len(points_KD), 1 / len(points_KD)), w2sq)


def solve_all(
    found: list[Barycenter],
    classes: Sequence[Callable[[], Array]],
    ipc: int,
    weights: str,
    iterations: int,
    tolerance: float,
    restarts: int,
    seeds: Sequence[int],
    threads: int = 1,
    after_class: Callable[[list[Barycenter]], None] = lambda _found: None,
) -> None:
    """Barycenters of many classes, in order; in several threads (the solver lets the others go on), with equal results.

    ``found`` holds those of the first classes already and takes the others one by one. ``classes`` give the features
    (n, D) of each class when they are called, so that only those being solved are in memory. ``after_class`` may raise
    to stop.
    """
    # Each in one thread: another number of them rounds otherwise. OpenMP counts them for each thread of ours.
    limits = ThreadpoolController()

    def one(label: int) -> Barycenter:
        with limits.limit(limits=1, user_api="openmp"):
            return solve(classes[label](), ipc, weights, iterations, tolerance, restarts, seeds[label])

    left = range(len(found), len(classes))
    with ExitStack() as opened:
        opened.enter_context(limits.limit(limits=1))
        work: Iterator[Barycenter] = map(one, left)
        if threads > 1 and len(left) > 1:
            pool = ThreadPoolExecutor(threads, thread_name_prefix="barycenter")
            opened.callback(pool.shutdown, cancel_futures=True)
            work = pool.map(one, left)
        for barycenter in work:
            found.append(barycenter)
            after_class(found)
