"""One line: which stages are done, which runs and how far, which are to come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

SHORT = {"squeeze": "squeeze", "statistics": "stats", "barycenter": "bary", "recover": "recover", "relabel": "relabel"}


def stage_line(
    stages: Sequence[str],
    done: Mapping[str, str],
    current: str,
    percent: float | None,
    ascii_only: bool,
    narrow: bool,
    alive: bool = True,
) -> Text:
    """The strip. ``done`` maps each finished stage to what stands behind it: its time, or that it was cached.

    ``current`` is the stage at work, of a run that is not ``alive`` the one it was in, with how far it got.
    """
    tick, arrow, halt, empty, join = ("+", ">", "#", "-", " | ") if ascii_only else ("✓", "▶", "■", "·", " → ")
    text = Text(no_wrap=True, overflow="ellipsis")
    for index, stage in enumerate(stages):
        name = SHORT.get(stage, stage) if narrow else stage
        text.append(join if index else "")
        if stage == current:
            share = "" if percent is None else f" {percent:.0f}%"
            if alive:
                text.append(f"{arrow} {name}{share}", style="bold reverse")
            else:
                text.append(f"{halt} {name}{share}", style="bold")
        elif stage in done:
            text.append(f"{tick} {name}" + ("" if narrow or not done[stage] else f" {done[stage]}"))
        else:
            text.append(f"{empty} {name}", style="dim")
    return text
