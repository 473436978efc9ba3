"""Faults caused in true engine processes; ``make faults`` causes all of them, and kills at random moments."""

from __future__ import annotations

from collections.abc import Callable

import faults
import pytest
from faults import Ward
from nursery import Nursery
from scenes import small

#: Dozens of starts of an engine take seconds on a quiet machine, and minutes where others compute beside the tests.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="session")
def ward(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Ward:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WMDD_HOME", str(tmp_path_factory.mktemp("undisturbed")))
        made = Ward(nursery, tmp_path_factory.mktemp("ward"))
        made.undisturbed("small", small())
    return made


#: Left to ``make faults``: they need large networks, or a dozen runs.
HEAVY = (
    faults.interrupted_twice,
    faults.damaged_checkpoints,
    faults.out_of_memory_where_batches_count,
)


@pytest.mark.parametrize("fault", [one for one in faults.ALL if one not in HEAVY], ids=lambda one: one.__name__)
def test_nothing_is_lost(ward: Ward, fault: Callable[[Ward], None]) -> None:
    fault(ward)
