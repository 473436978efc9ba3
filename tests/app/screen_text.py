"""What a screen shows, as text that people can review: its rows, and the style of every run of cells."""

from __future__ import annotations

import difflib
import itertools
import re
import string
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.app import App

LETTERS = string.ascii_letters + "αβγδεζηθικλμνξοπρστυφχψωбгджзийлпфцчшщъыьэюя"
MOST_DIFFERENCES = 20
_RUN = re.compile(r"(.)(\d+)")


@dataclass(frozen=True)
class Shot:
    """A screen: rows of text, and for each row the runs of cells of one style, as (style, cells)."""

    rows: tuple[str, ...]
    styles: tuple[tuple[tuple[str, int], ...], ...]


def shot_of(app: App[int]) -> Shot:
    """The screen as it goes to the terminal, with what shines through a modal one."""
    update = app.screen._compositor.render_update(full=True, screen_stack=app._background_screens)
    rows, styles = [], []
    for strips in update.strips:  # type: ignore[union-attr]
        segments = [segment for strip in strips for segment in strip if not segment.control]
        rows.append("".join(segment.text for segment in segments).rstrip())
        styles.append(_runs(segments))
    return Shot(tuple(rows), tuple(styles))


def _runs(segments: Iterable[Segment]) -> tuple[tuple[str, int], ...]:
    named = [(_named(segment.style), segment.cell_length) for segment in segments if segment.text]
    grouped = itertools.groupby(named, key=lambda one: one[0])
    return tuple((style, sum(length for _, length in group)) for style, group in grouped)


def _named(style: Style | None) -> str:
    """Colours and attributes in words, such as ``#ffffff on #000000 bold``."""
    if style is None:
        return "plain"
    parts = [style.color.get_truecolor().hex if style.color else "plain"]
    parts += ["on " + style.bgcolor.get_truecolor().hex] if style.bgcolor else []
    parts += [name for name in ("bold", "dim", "italic", "underline", "reverse", "strike") if getattr(style, name)]
    return " ".join(parts)


def to_text(shot: Shot) -> str:
    """The rows, the letters of the styles, and row by row the runs of letters: ``a79 b1`` are 79 cells of style a."""
    letters = _letters({style for row in shot.styles for style, _ in row})
    lines = [*shot.rows, "--- styles"]
    lines += sorted(f"{letter} {style}" for style, letter in letters.items())
    lines.append("--- cells")
    row = 0
    for runs, group in itertools.groupby(shot.styles):
        count = len(list(group))
        where = str(row + 1) if count == 1 else f"{row + 1}-{row + count}"
        lines.append(f"{where}: " + " ".join(f"{letters[style]}{length}" for style, length in runs))
        row += count
    return "\n".join(lines) + "\n"


def from_text(text: str) -> Shot:
    """The way back from ``to_text``."""
    shown, _, rest = text.partition("\n--- styles\n")
    listed, _, cells = rest.partition("\n--- cells\n")
    names = {line[0]: line[2:] for line in listed.splitlines()}
    styles: list[tuple[tuple[str, int], ...]] = []
    for line in cells.splitlines():
        where, _, runs = line.partition(": ")
        first, _, last = where.partition("-")
        found = tuple((names[letter], int(count)) for letter, count in _RUN.findall(runs))
        styles += [found] * (int(last or first) - int(first) + 1)
    return Shot(tuple(shown.split("\n")), tuple(styles))


def _letters(styles: set[str]) -> dict[str, str]:
    """A letter for each style, drawn from its words: a new style seldom changes the letters of the others."""
    assert len(styles) <= len(LETTERS), f"{len(styles)} styles on one screen; use pictures of fewer colours"
    found: dict[str, str] = {}
    free = dict.fromkeys(LETTERS)
    for style in sorted(styles):
        start = zlib.crc32(style.encode()) % len(LETTERS)
        letter = next(one for one in LETTERS[start:] + LETTERS[:start] if one in free)
        del free[letter]
        found[style] = letter
    return found


def differences(stored: Shot, now: Shot) -> str:
    """How two screens differ: lines of text that changed, then cells whose style alone did; empty when they do not."""
    if stored == now:
        return ""
    lines = list(difflib.unified_diff(stored.rows, now.rows, "stored", "now", n=1, lineterm=""))
    lines += [] if len(stored.styles) == len(now.styles) else ["the number of rows differs"]
    changes = [
        f"row {y + 1}, cells {start + 1}-{stop}: {before}  →  {after}"
        for y, (one, other) in enumerate(zip(stored.styles, now.styles, strict=False))
        if stored.rows[y] == now.rows[y]
        for start, stop, before, after in _restyled(one, other)
    ]
    lines += changes[:MOST_DIFFERENCES]
    if len(changes) > MOST_DIFFERENCES:
        lines.append(f"… and {len(changes) - MOST_DIFFERENCES} more runs of cells")
    return "\n".join(lines)


def _restyled(one: Sequence[tuple[str, int]], other: Sequence[tuple[str, int]]) -> Iterable[tuple[int, int, str, str]]:
    before, after = ([style for style, count in runs for _ in range(count)] for runs in (one, other))
    x = 0
    for pair, group in itertools.groupby(itertools.zip_longest(before, after, fillvalue="nothing")):
        stop = x + len(list(group))
        if pair[0] != pair[1]:
            yield x, stop, *pair
        x = stop
