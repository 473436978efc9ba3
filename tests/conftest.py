"""Options and fixtures of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

VECTORS = Path(__file__).parent / "reference" / "vectors.npz"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", default=str(VECTORS), help="reference vectors (.npz) to reproduce")
    parser.addoption("--gpu", action="store_true", help="tests/gpu on a GPU, not on a simulated one")
    parser.addoption("--update-snapshots", action="store_true", help="store what the screens show now")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests that need a card, and those of what stands in for it."""
    other = "test_simulated.py" if config.getoption("--gpu") else "test_card.py"
    return True if collection_path.name == other else None


@pytest.fixture(autouse=True)
def wmdd_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a home of its own."""
    home = tmp_path / "wmdd-home"
    monkeypatch.setenv("WMDD_HOME", str(home))
    return home
