"""Colours, and words and signs of states. All colours are exact in the 256-colour cube, so SSH loses nothing."""

from __future__ import annotations

from rich.text import Text
from textual.theme import Theme

from wmdd_tui.quantities import duration as duration
from wmdd_tui.quantities import size as size

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

#: Colours of curves: colour-blind-safe, distinct in the 256-colour cube, readable on their ground.
_SERIES_DARK = ("#5fafff", "#ffaf00", "#00af87", "#d787af", "#d75f00", "#afd7ff")
_SERIES_LIGHT = ("#005fd7", "#af5f00", "#00875f", "#af005f", "#5f0087", "#5f5f5f")
#: What marks the curves besides their colour.
SIGNS = "●▲■◆▼○"
#: Colours of classes, which have letters besides.
_CLASSES_DARK = (
    "#5fafff", "#ffaf00", "#00af87", "#d787af", "#87d700", "#ff5f5f", "#af87ff", "#afd7ff", "#d75f00", "#d7d7af",
)  # fmt: skip
_CLASSES_LIGHT = (
    "#005fd7", "#af5f00", "#00875f", "#af005f", "#5f8700", "#d70000", "#5f00af", "#0087af", "#5f0000", "#5f5f5f",
)  # fmt: skip
#: Shades of a heatmap, rising with the value; far ends stand out from the ground.
_SHADES_DARK = (
    "#585858", "#5f5f87", "#5f5faf", "#5f5fd7", "#5f87d7", "#5fafd7", "#5fd7d7", "#87d7af", "#d7d75f", "#ffff5f",
)  # fmt: skip
_SHADES_LIGHT = (
    "#a8a8a8", "#87afaf", "#5fafaf", "#5f87af", "#5f87d7", "#005fd7", "#005faf", "#00005f", "#5f0000", "#000000",
)  # fmt: skip


def series_colours(dark: bool) -> tuple[str, ...]:
    """Colours of the curves of a chart."""
    return _SERIES_DARK if dark else _SERIES_LIGHT


def class_colours(dark: bool) -> tuple[str, ...]:
    """Colours of the classes of a scatter, which begin again after the last."""
    return _CLASSES_DARK if dark else _CLASSES_LIGHT


def heat_colours(dark: bool) -> tuple[str, ...]:
    """Ten colours from the smallest to the largest value."""
    return _SHADES_DARK if dark else _SHADES_LIGHT


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
