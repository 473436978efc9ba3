"""How long work takes on a device: shipped rates, corrected by what finished runs on that device took.

The rates give each stage's base time. The logarithm of measured over base time is modelled as a Gaussian process: a
share common to the whole device, one of each kind of stage, and one that alike networks and batches have in common.
So the first run on an unknown machine already tells how fast it is, and further ones refine the rest; where nothing
alike was measured, the error is wide. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.config import RunSection
from wmdd_tui.store.workload import DATA, START, StageLoad, Work

#: Seconds a unit on two cores of a Xeon at 2.5 GHz with AVX-512 (``benchmarks/estimates.py`` prints them anew).
CPU_RATES = Work(
    macs=1.0e-11,
    elements=2.5e-9,
    views=1.4e-10,
    layers=1.3e-3,
    steps=0.8e-3,
    parameters=7.0e-9,
    pixels=1.5e-8,
    transport=2.7e-6,
    files=2e-4,
    bytes=7.6e-9,
)
#: The shape of a GPU's times, not measured: only together with a measured run do they give a time.
GPU_RATES = CPU_RATES._replace(
    macs=8e-15, elements=1.5e-11, views=2e-12, layers=40e-6, steps=1.5e-3, parameters=4e-12
)  # fmt: skip
#: Seconds whatever the work: of imports before anything is computed and before barycenters, and of building networks
#: once the images are there.
FIXED_SECONDS = {START: 6.5, DATA: 0.3, "barycenter": 0.35}
#: Threads the rates were measured with, and the power of their number by which networks become faster.
THREADS, THREAD_POWER = 2, 0.8
#: Checkpoints take at most one part in this many of a stage's time (as engine.context has it).
CHECKPOINT_SHARE = 20
#: Variances of the logarithm: of the device, of a kind of stage, of a kind of network and batch; and its noise.
DEVICE, STAGE, ALIKE, NOISE = 0.5, 0.05, 0.05, 0.005
#: Distance in logarithms over which networks and batches are alike, and within which they keep cores equally busy;
#: seconds by which any measurement may be off.
REACH, BUSY_REACH, JITTER_SECONDS = 1.5, 3.0, 0.5
COMPUTING = frozenset({"squeeze", "statistics", "recover", "relabel", "train"})
#: No stage takes less, in seconds.
MOMENT = 1e-3
#: Fewest runs whose mutual predictions count as a measurement of the error.
ENOUGH_RUNS = 3
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One stage of one run: what it resembles (logarithms of elements a step, of multiply-adds an element, of
    threads) and its base time."""

    stage: str
    place: tuple[float, float, float]
    base: float


@dataclass(frozen=True)
class Sample:
    """A measured stage. ``seconds`` are what it would have taken alone on the machine, ``noise`` the variance of
    their logarithm, larger where other jobs ran beside it."""

    run: str
    point: Point
    seconds: float
    noise: float


@dataclass(frozen=True)
class Prediction:
    """Seconds of each point, and the standard deviation of the logarithm of their sum."""

    seconds: tuple[float, ...]
    deviation: float

    @property
    def total(self) -> float:
        return sum(self.seconds)


def point_of(load: StageLoad, run: RunSection, cuda: bool, cores: int) -> Point:
    """The base time and the place of a stage."""
    used = min(run.threads, cores)
    rates = GPU_RATES if cuda else CPU_RATES
    faster = 1.0 if cuda else (used / THREADS) ** THREAD_POWER
    work = load.work
    networks = Work(work.macs, work.elements, work.views, work.layers, work.steps, work.parameters)
    rest = Work(pixels=work.pixels, transport=work.transport, files=work.files, bytes=work.bytes)
    seconds = _dot(networks, rates) / faster + _dot(rest, rates)
    seconds += FIXED_SECONDS.get(load.stage, 0.0)
    written = load.checkpoint * rates.bytes
    if written:
        seconds *= 1 + written / max(run.checkpoint_seconds, CHECKPOINT_SHARE * written)
    place = (0.0, 0.0, math.log(used))
    if load.stage in COMPUTING and work.steps and work.elements:
        place = (math.log1p(work.elements / work.steps), math.log1p(work.macs / work.elements), math.log(used))
    return Point(load.stage, place, max(seconds, MOMENT))


def _dot(work: Work, rates: Work) -> float:
    return sum(amount * rate for amount, rate in zip(work, rates, strict=True))


def sample_of(run: str, point: Point, seconds: float, share: float, others: Sequence[tuple[Point, float]]) -> Sample:
    """What a measured time tells.

    ``share`` is the part of its threads' time that the engine got. ``others`` are points of this device with theirs:
    where the same stage of a comparable network got more, other jobs ran beside this one, which took that much
    longer, and how much exactly is uncertain.
    """
    comparable = [
        found
        for other, found in others
        if other.stage == point.stage and math.dist(other.place, point.place) < BUSY_REACH
    ]
    lost = math.log(max([share, *comparable]) / share) if share > 0 else 0.0
    jitter = JITTER_SECONDS / (2 * max(seconds, JITTER_SECONDS))
    return Sample(run, point, max(seconds, MOMENT) * math.exp(-lost), NOISE + jitter**2 + lost**2)


def predict(points: Sequence[Point], samples: Sequence[Sample]) -> Prediction:
    """The times of some points, given what was measured on the same device."""
    if not points:
        return Prediction((), 0.0)
    mean = np.zeros(len(points))
    covariance = _kernel(points, points)
    if samples:
        across = _kernel(points, [sample.point for sample in samples])
        solved = np.linalg.solve(_gram(samples), np.column_stack([_ratios(samples), across.T]))
        mean = across @ solved[:, 0]
        covariance = covariance - across @ solved[:, 1:]
    seconds = np.array([point.base for point in points]) * np.exp(mean)
    share = seconds / seconds.sum()
    return Prediction(tuple(seconds.tolist()), math.sqrt(max(0.0, float(share @ covariance @ share))))


def _gram(samples: Sequence[Sample]) -> Array:
    known = [sample.point for sample in samples]
    return _kernel(known, known) + np.diag([sample.noise for sample in samples])


def _ratios(samples: Sequence[Sample]) -> Array:
    return np.array([math.log(sample.seconds / sample.point.base) for sample in samples])


def _kernel(rows: Sequence[Point], columns: Sequence[Point]) -> Array:
    places = [np.array([point.place for point in points]) for points in (rows, columns)]
    stages = [np.array([point.stage for point in points]) for points in (rows, columns)]
    computing = [np.array([point.stage in COMPUTING for point in points]) for points in (rows, columns)]
    distance = ((places[0][:, None] - places[1][None]) ** 2).sum(2)
    same = stages[0][:, None] == stages[1][None]
    both = computing[0][:, None] & computing[1][None]
    alike = np.exp(-distance / (2 * REACH**2)) * np.where(same, 1.0, np.where(both, 0.5, 0.0))
    kernel: Array = DEVICE + STAGE * same + ALIKE * alike
    return kernel


def crossed(samples: Sequence[Sample]) -> dict[str, tuple[float, float, float]]:
    """For each run: seconds predicted from the other runs alone, seconds measured, noise of the logarithm of these.

    All runs come from one inverse: what a block of it says of the block's own values is the prediction without them.
    """
    if not samples:
        return {}
    inverse = np.linalg.inv(_gram(samples))
    ratios = _ratios(samples)
    pulled = inverse @ ratios
    rows: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        rows.setdefault(sample.run, []).append(row)
    found = {}
    for run, own in rows.items():
        mean = ratios[own] - np.linalg.solve(inverse[np.ix_(own, own)], pulled[own])
        predicted = sum(samples[row].point.base * math.exp(ratio) for row, ratio in zip(own, mean, strict=True))
        measured = sum(samples[row].seconds for row in own)
        noise = sum((samples[row].seconds / measured) ** 2 * samples[row].noise for row in own)
        found[run] = (predicted, measured, noise)
    return found


def measured_deviation(samples: Sequence[Sample]) -> float | None:
    """Root mean square of the logarithms of predicted over measured time of whole runs, each predicted from the
    others and weighted by how undisturbed it was; None for fewer than three runs."""
    found = crossed(samples)
    if len(found) < ENOUGH_RUNS:
        return None
    weights = [1 / noise for _, _, noise in found.values()]
    squares = [math.log(predicted / measured) ** 2 for predicted, measured, _ in found.values()]
    return math.sqrt(sum(w * s for w, s in zip(weights, squares, strict=True)) / sum(weights))
