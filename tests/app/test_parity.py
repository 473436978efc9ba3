"""docs/parity.md and docs/methods.md speak of tests, options, presets and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine import presets
from engine.config import option_keys

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "docs" / name for name in ("parity.md", "methods.md")]
SECTIONS = {key.partition(".")[0] for key in option_keys() if "." in key}


def test_every_test_that_parity_names_exists() -> None:
    named = re.findall(r"`([a-z_/]+\.py)::(test_\w+)`", DOCS[0].read_text())
    assert len(named) > 40
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), (file, name)


@pytest.mark.parametrize("page", DOCS, ids=lambda path: path.stem)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    words = re.findall(r"\b([a-z]+\.[a-z_0-9]+)\b", page.read_text())
    named = {word for word in words if word.partition(".")[0] in SECTIONS}
    named = {word for word in named if not word.endswith((".py", ".sh", ".md", ".json"))}
    assert len(named) > 15
    assert named <= set(option_keys()), named - set(option_keys())


def test_every_preset_that_methods_names_exists() -> None:
    beginnings = re.findall(r"`((?:imagenette|tiny|imagenet1k|sre2l|cda)-[a-z0-9-]+?)(?:…)?`", DOCS[1].read_text())
    assert len(set(beginnings)) > 6
    for beginning in beginnings:
        assert any(name.startswith(beginning) for name in presets.PRESETS), beginning
