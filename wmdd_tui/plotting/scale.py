"""Axes: linear and logarithmic, on nice bounds that do not jump at every value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["linear", "log"]
Array = npt.NDArray[np.float64]
#: The axis shrinks only when the data use less than this share of it.
SHRINK_SHARE = 0.4


class LogRefused(ValueError):
    """A logarithmic axis was asked for without positive values."""


@dataclass(frozen=True)
class Axis:
    """Bounds in data units."""

    lo: float
    hi: float
    kind: Kind = "linear"

    def place(self, values: Array) -> Array:
        """Positions in 0..1; NaN stays NaN, as do values a logarithm cannot take."""
        if self.kind == "log":
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(values > 0, np.log10(values), np.nan)
            return (values - math.log10(self.lo)) / (math.log10(self.hi) - math.log10(self.lo))
        return (values - self.lo) / (self.hi - self.lo)


def nice_step(span: float, parts: int = 4) -> float:
    """A step of 1, 2 or 5 times a power of ten that divides ``span`` into about ``parts``."""
    raw = span / parts
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def fit(lo: float, hi: float, kind: Kind) -> Axis:
    """Nice bounds around [lo, hi]. Raises LogRefused."""
    if kind == "log":
        if hi <= 0:
            raise LogRefused("no positive values for a logarithmic axis")
        low = math.floor(math.log10(lo if lo > 0 else hi * 1e-3))
        high = math.ceil(math.log10(hi) + 1e-9)
        return Axis(10.0**low, 10.0 ** max(high, low + 1), "log")
    if hi - lo < 1e-12 * max(1.0, abs(hi)):
        pad = abs(hi) * 0.1 or 1.0
        lo, hi = lo - pad, hi + pad
    step = nice_step(hi - lo)
    return Axis(math.floor(lo / step + 1e-9) * step, math.ceil(hi / step - 1e-9) * step)


def settle(previous: Axis | None, lo: float, hi: float, kind: Kind) -> Axis:
    """The axis for new data: it grows at once and shrinks only when much too large."""
    wanted = fit(lo, hi, kind)
    if previous is None or previous.kind != kind or wanted.lo < previous.lo or wanted.hi > previous.hi:
        return wanted
    used = float(np.ptp(previous.place(np.array([wanted.lo, wanted.hi]))))
    return wanted if used < SHRINK_SHARE else previous


def label(value: float) -> str:
    """A tick's text, at most seven characters."""
    if value == 0:
        return "0"
    text = f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"
    return text if len(text) <= 7 else f"{value:.0e}"
