"""Wasserstein barycenters of the features of one class (paper: Liu et al., ICCV 2025; Cuturi & Doucet 2014).

For a single measure Σ_i δ(x_i)/n the problem has a simple form:

- weights free (``"optimized"``): each x_i goes to its nearest support point, so the optimum is k-means and the
  weights are the shares of the cells;
- weights uniform: it is equal-mass k-means: exact optimal transport plan, then barycentric projection
  ``b_j = (1/w_j) Σ_i T_ij x_i``, alternated until W2² no longer falls.

Both start from k-means++ and keep the best of several starts, where the authors start from one unseeded N(0, I)
draw. Torch-free. Shapes: n features, K = IPC support points, D dimensions; float64 throughout.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import ot
from joblib import Parallel, delayed
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

Array = npt.NDArray[np.float64]

#: A class whose n × K exceeds this is large: fewer restarts.
LARGE = 20_000
#: From this n × K on, classes go to parallel processes, which take two seconds to start.
PARALLEL = 5_000
#: Starts are compared once an iteration gains less than this share of W2²; only the best goes on to the end.
SCOUTING = 1e-3
#: From <linux/prctl.h>: the signal a process gets when its parent dies.
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Barycenter:
    """Support points (K, D), their weights (K,) summing to one, and the exact W2² to the features."""

    points_KD: Array
    weights_K: Array
    w2sq: float


def w2_squared(features_nD: Array, points_KD: Array, weights_K: Array) -> float:
    """Exact squared 2-Wasserstein distance of the uniform measure on the features to the weighted points."""
    mass_n = np.full(len(features_nD), 1 / len(features_nD))
    return float(ot.emd2(mass_n, weights_K, ot.dist(features_nD, points_KD), numItermax=2_000_000))


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
    if weights == "optimized":
        return _optimized(features_nD, ipc, iterations, _starts(len(features_nD) * ipc, restarts), seed)
    return _uniform(features_nD, ipc, iterations, tolerance, _starts(len(features_nD) * ipc, restarts), seed)


def _starts(size: int, restarts: int) -> int:
    return restarts or (10 if size <= LARGE else 2)


def _seeds(seed: int, count: int) -> list[int]:
    return [int(value) for value in np.random.SeedSequence(seed).generate_state(count)]


def _k_means(features_nD: Array, ipc: int, iterations: int, seed: int) -> Array:
    with warnings.catch_warnings():
        # Fewer distinct features than points is a case we handle, not a fault.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(
            KMeans(ipc, n_init=1, max_iter=iterations, random_state=seed).fit(features_nD).cluster_centers_
        )


def _optimized(features_nD: Array, ipc: int, iterations: int, starts: int, seed: int) -> Barycenter:
    distinct_uD, inverse_n = np.unique(features_nD, axis=0, return_inverse=True)
    if len(distinct_uD) <= ipc:
        return _repeated(distinct_uD, np.bincount(inverse_n.reshape(-1)) / len(features_nD), ipc)
    best: Barycenter | None = None
    for start in _seeds(seed, starts):
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


def _uniform(features_nD: Array, ipc: int, iterations: int, tolerance: float, starts: int, seed: int) -> Barycenter:
    if ipc >= len(features_nD):
        # Cyclic repetition is the optimum when n divides K, and the start otherwise.
        return refine(features_nD, features_nD[np.arange(ipc) % len(features_nD)], iterations, tolerance)
    found = []
    for number, start in enumerate(_seeds(seed, starts)):
        if number % 2 == 0:
            initial = _k_means(features_nD, ipc, 30, start)
        else:
            initial = np.asarray(kmeans_plusplus(features_nD, ipc, random_state=start)[0])
        found.append(refine(features_nD, initial, iterations, max(tolerance, SCOUTING)))
    best = min(found, key=lambda one: one.w2sq)
    return refine(features_nD, best.points_KD, iterations, tolerance)


def refine(features_nD: Array, points_KD: Array, iterations: int, tolerance: float) -> Barycenter:
    """Alternate exact plan and barycentric projection from given points, uniform weights, until W2² settles."""
    mass_n = np.full(len(features_nD), 1 / len(features_nD))
    weights_K = np.full(len(points_KD), 1 / len(points_KD))
    previous: float | None = None
    for _ in range(iterations):
        cost_nK = ot.dist(features_nD, points_KD)
        plan_nK = ot.emd(mass_n, weights_K, cost_nK, numItermax=2_000_000)
        current = float((plan_nK * cost_nK).sum())
        points_KD = plan_nK.T @ features_nD / weights_K[:, None]
        if previous is not None and previous - current <= tolerance * previous:
            break
        previous = current
    return Barycenter(points_KD, weights_K, w2_squared(features_nD, points_KD, weights_K))


def _solve_for(
    engine: int, features_nD: Array, ipc: int, weights: str, iterations: int, tolerance: float, restarts: int, seed: int
) -> Barycenter:
    """``solve`` for the process ``engine``: in it, or in a worker, which then ends with it even when that is killed."""
    if os.getpid() != engine and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != engine:  # it was gone before
            os._exit(1)
    # One thread: another number of them rounds otherwise, and a worker must find what this process would.
    with threadpool_limits(1):
        return solve(features_nD, ipc, weights, iterations, tolerance, restarts, seed)


def solve_all(
    found: list[Barycenter],
    classes: Sequence[Callable[[], Array]],
    largest: int,
    ipc: int,
    weights: str,
    iterations: int,
    tolerance: float,
    restarts: int,
    seeds: Sequence[int],
    processes: int = 1,
    after_class: Callable[[list[Barycenter]], None] = lambda _found: None,
    warn: Callable[[str], None] = lambda _message: None,
) -> None:
    """Barycenters of many classes, in order; large classes in parallel processes, with equal results.

    ``found`` holds those of the first classes already and takes the others one by one. ``classes`` give the features
    (n, D) of each class when they are called, so that only those being solved are in memory; ``largest`` is the
    greatest n. ``after_class`` may raise to stop. A worker process that is killed is said, and its class and the
    rest are solved in this process.
    """
    jobs = processes if largest * ipc >= PARALLEL and len(classes) > 1 else 1
    while len(found) < len(classes):
        left = range(len(found), len(classes))
        work: Iterator[Barycenter] = Parallel(n_jobs=jobs, return_as="generator")(
            delayed(_solve_for)(
                os.getpid(), classes[label](), ipc, weights, iterations, tolerance, restarts, seeds[label]
            )
            for label in left
        )
        try:
            for barycenter in work:
                found.append(barycenter)
                after_class(found)
        except BrokenProcessPool:
            warn("a worker process of the barycenters was killed; going on in this process")
            jobs = 1
