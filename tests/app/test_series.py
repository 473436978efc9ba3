"""Series against brute force: bounded memory, extremes kept, gaps and few values shown."""

from __future__ import annotations

import numpy as np
import pytest

from wmdd_tui.plotting.scale import LogRefused, fit, settle
from wmdd_tui.store.series import CAPACITY, Series


def test_a_spike_among_a_million_is_visible() -> None:
    series = Series()
    values = np.zeros(10_000)
    for start in range(0, 1_000_000, len(values)):
        values[:] = 1.0
        if start == 370_000:
            values[1234] = 99.0
        series.extend(start, values)
    found = series.window(0, 1_000_000, 160)
    assert np.nanmax(found.hi) == 99.0
    assert np.nanmin(found.lo) == 1.0
    assert int(np.nanargmax(found.hi)) == int(371_234 / 1_000_000 * 160)
    assert len(series._lo) == CAPACITY


@pytest.mark.parametrize("count", [1, 7, 300, 9000])
def test_window_matches_brute_force(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    series = Series()
    for start in range(0, count, 13):
        series.extend(start, values[start : start + 13])
    found = series.window(0, count, 1)
    np.testing.assert_allclose([found.lo[0], found.hi[0], found.mean[0]], [values.min(), values.max(), values.mean()])
    assert series.last == values[-1]


def test_few_values_fill_their_columns() -> None:
    series = Series()
    series.extend(0, [1.0, 2.0])
    assert series.window(0, 4, 8).mean.tolist()[:4] == [1.0, 1.0, 2.0, 2.0]
    assert np.isnan(series.window(0, 4, 8).mean[4:]).all()


def test_not_finite_is_a_gap() -> None:
    series = Series()
    series.extend(0, [1.0, float("nan"), float("inf"), 2.0])
    found = series.window(0, 4, 4)
    assert np.isnan(found.hi).tolist() == [False, True, True, False]
    assert series.nonfinite == 2


def test_values_sent_again_replace() -> None:
    series = Series()
    series.extend(0, [5.0, 6.0])
    series.extend(1, [7.0])
    assert series.window(0, 2, 2).hi.tolist() == [5.0, 7.0]


def test_axes() -> None:
    axis = fit(3, 97, "linear")
    assert axis.lo <= 3
    assert axis.hi >= 97
    assert settle(axis, 10, 80, "linear") == axis, "an axis does not jump for a little less"
    assert settle(axis, 10, 12, "linear").hi < 20
    assert settle(axis, 10, 300, "linear").hi >= 300
    assert fit(2, 2, "linear").hi > 2
    with pytest.raises(LogRefused):
        fit(-5, 0, "log")
