"""Terminal settings that Textual reads once, at its import: this module is imported before it."""

from __future__ import annotations

import os

os.environ.setdefault("TEXTUAL_FPS", "60")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
