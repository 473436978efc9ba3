"""Options and fixtures of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

VECTORS = Path(__file__).parent / "reference" / "vectors.npz"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--vectors", default=str(VECTORS), help="reference vectors (.npz) to reproduce")
    parser.addoption("--gpu", action="store_true", help="collect tests/gpu, which needs one")
    parser.addoption("--update-snapshots", action="store_true", help="store what the screens show now")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests that need a GPU are a suite of their own."""
    return True if collection_path.name == "gpu" and not config.getoption("--gpu") else None


@pytest.fixture(autouse=True)
def wmdd_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a home of its own."""
    home = tmp_path / "wmdd-home"
    monkeypatch.setenv("WMDD_HOME", str(home))
    return home
