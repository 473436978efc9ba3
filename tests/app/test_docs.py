"""Generated documentation is what its generator says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KEYS = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_page_of_keys_is_current() -> None:
    done = subprocess.run([sys.executable, "-m", "wmdd_tui.actions"], capture_output=True, text=True, check=True)
    assert done.stdout == KEYS.read_text(encoding="utf-8"), "run: python -m wmdd_tui.actions > docs/keys.md"
