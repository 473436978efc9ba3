"""``--ascii`` for everything: what widgets, borders, scrollbars and run names draw is replaced at the last moment."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_SIGNS = {
    "·": "-", "…": "~", "→": ">", "←": "<", "↑": "^", "↓": "v", "▶": ">", "▼": "v", "▲": "^", "◀": "<", "●": "*",
    "✓": "+", "✗": "x", "×": "x", "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "²": "2", "λ": "L",
    "°": "o", "†": "+", "█": "#", "▀": "#", "▄": "#", "•": "*", "⭘": "o", "━": "-", "┃": "|", "─": "-", "│": "|",
}  # fmt: skip


@lru_cache(8192)
def ascii_character(character: str) -> str:
    """A replacement as wide as the character: a sign, the letter without its accent, a line or block, or ``?``."""
    width = cell_len(character)
    plain = _SIGNS.get(character)
    if plain is None and "\u2500" <= character <= "\u257f":
        plain = "+"
    if plain is None and ("\u2580" <= character <= "\u259f" or "\U0001fb00" <= character <= "\U0001fbff"):
        plain = " "
    if plain is None:
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()[:1] or "?"
    return plain * width


def to_ascii(text: str) -> str:
    """A text of the same width in ASCII alone."""
    return text if text.isascii() else "".join(c if c.isascii() else ascii_character(c) for c in text)


class AsciiFilter(LineFilter):
    """Textual's hook for what goes to the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002  (Textual gives it)
        return [Segment(to_ascii(text), style, control) for text, style, control in segments]
