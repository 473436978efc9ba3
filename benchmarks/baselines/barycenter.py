"""Barycenters by POT's own loop: uniform mass, one start from N(0, I), class after class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import ot

Array = npt.NDArray[np.float64]


def solve(features_nD: Array, start_KD: Array) -> Array:
    """Support points (K, D) of one class, with POT's own stopping rule."""
    count, points = len(features_nD), len(start_KD)
    found: Array = ot.lp.free_support_barycenter(
        [features_nD], [np.full(count, 1 / count)], start_KD, np.full(points, 1 / points)
    )
    return found


def solve_all(classes: Sequence[Array], points: int, random: np.random.Generator) -> list[Array]:
    """Support points of every class."""
    return [solve(features_nD, random.normal(size=(points, features_nD.shape[1]))) for features_nD in classes]
