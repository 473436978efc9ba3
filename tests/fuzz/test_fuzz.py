"""A few dozen hostile inputs at every entry point; ``make fuzz`` feeds over 10,000."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from entries import ENTRIES
from fuzz import cases


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda one: one.__name__)
@pytest.mark.filterwarnings("default")
def test_hostile_input_is_refused_by_name(entry: Callable[[Any, Path], None]) -> None:
    assert cases(entry, 30) >= 30
