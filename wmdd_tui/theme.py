"""Colours, and words and signs of states. All colours are exact in the 256-colour cube, so SSH loses nothing."""

from __future__ import annotations

from rich.text import Text
from textual.theme import Theme

DARK = Theme(
    name="wmdd-dark",
    primary="#5fafff",
    secondary="#87afd7",
    accent="#ffaf5f",
    foreground="#e4e4e4",
    background="#121212",
    surface="#1c1c1c",
    panel="#303030",
    success="#5fd787",
    warning="#ffd75f",
    error="#ff8787",
    dark=True,
    variables={"border": "#5f87af", "border-blurred": "#585858", "footer-key-foreground": "#ffaf5f"},
)
LIGHT = Theme(
    name="wmdd-light",
    primary="#005faf",
    secondary="#5f5f87",
    accent="#af5f00",
    foreground="#1c1c1c",
    background="#ffffff",
    surface="#eeeeee",
    panel="#d0d0d0",
    success="#005f00",
    warning="#875f00",
    error="#af0000",
    dark=False,
    variables={"border": "#5f87af", "border-blurred": "#a8a8a8", "footer-key-foreground": "#875f00"},
)
THEMES = {"dark": DARK, "light": LIGHT}

_SIGNS = {
    "queued": ("…", "q"),
    "starting": ("◌", "~"),
    "running": ("▶", ">"),
    "paused": ("‖", "="),
    "stalled": ("!", "!"),
    "stopped": ("■", "#"),
    "finished": ("✓", "+"),
    "failed": ("✗", "x"),
    "crashed": ("✗", "X"),
    "remote": ("⇄", "@"),
    "unreadable": ("?", "?"),
}
_COLOURS = {
    "running": "success",
    "finished": "primary",
    "stalled": "warning",
    "paused": "warning",
    "failed": "error",
    "crashed": "error",
    "unreadable": "error",
}


def state_text(state: str, ascii_only: bool, dark: bool) -> Text:
    """A state as sign and word; the colour only repeats what the word says."""
    sign = _SIGNS.get(state, ("?", "?"))[1 if ascii_only else 0]
    theme = DARK if dark else LIGHT
    return Text(f"{sign} {state}", style=str(getattr(theme, _COLOURS.get(state, "secondary"))))


def duration(seconds: float | None) -> str:
    """Seconds as people read them: 42s, 3m05, 2h10, 3d4h; empty when unknown."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return ""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def size(count: float) -> str:
    """Bytes with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
