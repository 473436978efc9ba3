"""Every key of the dashboard, defined once: bindings, the help screen, the palette and the docs come from here.

``python -m wmdd_tui.actions`` prints the page of keys as Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Scope = Literal["app", "runs", "new", "monitor", "compare"]
SCOPES: dict[Scope, str] = {
    "app": "Everywhere",
    "runs": "Runs",
    "new": "New run",
    "monitor": "Monitor",
    "compare": "Compare",
}
PANELS = {
    "losses": "Losses",
    "layers": "BN per layer",
    "memory": "Memory",
    "images": "Images",
    "log": "Log",
    "metrics": "Evaluation",
    "distribution": "Distribution",
}


@dataclass(frozen=True)
class Action:
    """One thing a key does. ``call`` is Textual's action text; ``key`` may hold alternatives after commas."""

    id: str
    key: str
    title: str
    help: str
    scope: Scope
    changes_run: bool = False
    footer: bool = False
    call: str = ""

    @property
    def name(self) -> str:
        """Unique over all scopes; the id a key map refers to."""
        return f"{self.scope}.{self.id}"

    @property
    def action(self) -> str:
        return self.call or self.id

    @property
    def target(self) -> str:
        """Textual's action text from anywhere."""
        return f"{'app' if self.scope == 'app' else 'screen'}.{self.action}"


ACTIONS: tuple[Action, ...] = (
    Action("help", "question_mark,f1", "Help", "Show the keys of this screen.", "app", footer=True),
    Action("leave", "q", "Leave", "Close the dashboard; runs go on.", "app", footer=True),
    Action("back", "escape", "Back", "Step back one level.", "app", footer=True),
    Action("command_palette", "ctrl+p", "Palette", "Search every action by name.", "app"),
    Action("toggle_theme", "ctrl+t", "Theme", "Change between dark and light.", "app"),
    Action("down", "j", "Down", "Move down, as the arrow key does.", "app", call="move('down')"),
    Action("up", "k", "Up", "Move up, as the arrow key does.", "app", call="move('up')"),
    Action("open", "enter", "Open", "Watch the highlighted run.", "runs"),
    Action("new", "n", "New", "Fill in the form of a new run.", "runs", changes_run=True, footer=True),
    Action("demo", "d", "Demo", "Start the digits demo at once.", "runs", changes_run=True, footer=True),
    Action("filter", "slash", "Filter", "Show only runs that hold a text.", "runs", footer=True),
    Action("sort", "o", "Sort", "Change the column that orders the table.", "runs"),
    Action("mark", "space", "Mark", "Mark or unmark a run for comparison.", "runs", footer=True),
    Action("pin", "P", "Pin", "Keep a run at the top of the table, or let it go.", "runs"),
    Action("export", "E", "Export", "Write charts or images of the run to files (asks which).", "runs"),
    Action("compare", "C", "Compare", "Compare the marked runs.", "runs", footer=True),
    Action("duplicate", "e", "Copy to form", "Open the form with this run's settings.", "runs", changes_run=True),
    Action("resume", "r", "Resume", "Continue a stopped, failed or crashed run.", "runs", changes_run=True),
    Action("resume_queued", "R", "Resume queued", "Continue behind what runs there.", "runs", changes_run=True),
    Action("pause", "p", "Pause", "Pause the run, or let it go on.", "runs", changes_run=True),
    Action("stop", "x", "Stop", "Stop or leave the queue (asks first).", "runs", changes_run=True, footer=True),
    Action("sooner", "K,shift+up", "Sooner", "Move a queued run up.", "runs", changes_run=True, call="shift(-1)"),
    Action("later", "J,shift+down", "Later", "Move a queued run down.", "runs", changes_run=True, call="shift(1)"),
    Action("delete", "delete", "Delete", "Delete a run that is not alive (asks first).", "runs", changes_run=True),
    Action("launch", "ctrl+r,f5", "Launch", "Start the run and watch it.", "new", changes_run=True, footer=True),
    Action("check", "f6", "Check", "Ask the engine whether data, teacher and device are usable.", "new", footer=True),
    Action("preview", "f2", "TOML", "Show or hide the TOML and the command.", "new", footer=True),
    Action("paste", "f4", "Paste", "Fill the form from a pasted command or TOML.", "new", footer=True),
    Action("copy", "f7", "Copy", "Copy the equivalent command; write it and the TOML to files.", "new", footer=True),
    *(
        Action(panel, str(number), title, f"Show or hide the panel “{title}”.", "monitor", call=f"panel('{panel}')")
        for number, (panel, title) in enumerate(PANELS.items(), start=1)
    ),
    Action("maximise", "m", "Maximise", "Give the panel the screen, or give it back.", "monitor", footer=True),
    Action("open", "enter", "Open", "One layer's history; one class, one image; on a slow link, the image.", "monitor"),
    Action("scale", "y", "Lin/log", "Change the scale of the panel's chart.", "monitor"),
    Action("smooth", "s", "Smooth", "Change between raw and smoothed curves.", "monitor"),
    Action("term", "t", "Term", "Change what the panel draws: a term, the loss, t-SNE.", "monitor"),
    Action("sort", "o", "Sort", "Change the order of the layers.", "monitor"),
    Action("zoom_in", "plus,equals_sign", "Zoom in", "Show fewer iterations.", "monitor", call="zoom(2.0)"),
    Action("zoom_out", "minus", "Zoom out", "Show more iterations.", "monitor", call="zoom(0.5)"),
    Action("reset", "0", "Whole", "Show all iterations, without the read-out.", "monitor"),
    Action("pan_left", "h", "Pan left", "Move the zoomed chart to earlier iterations.", "monitor", call="pan(-0.25)"),
    Action("pan_right", "l", "Pan right", "Move the zoomed chart to later iterations.", "monitor", call="pan(0.25)"),
    Action("cursor_left", "left", "Cursor left", "Read-out, class or image before.", "monitor", call="cursor(-1)"),
    Action("cursor_right", "right", "Cursor right", "Read-out, class or image after.", "monitor", call="cursor(1)"),
    Action("classes", "C", "Classes", "Choose the classes of the distribution.", "monitor"),
    Action("filter", "slash", "Filter", "Filter layers and log by a text.", "monitor"),
    Action("follow", "f", "Follow", "Follow the end of the log, or stay.", "monitor"),
    Action("wrap", "w", "Wrap", "Break long lines of the log, or cut them.", "monitor"),
    Action("copy", "c", "Copy", "Copy the panel as text, and write it to a file.", "monitor"),
    Action("save", "S", "Save", "Write the panel as text to a file.", "monitor"),
    Action("export", "E", "Export", "Write the run's charts as SVG, PNG and CSV.", "monitor"),
    Action("freeze", "space", "Freeze", "Hold the display still; the run goes on.", "monitor", footer=True),
    Action("dismiss_alerts", "a", "Dismiss", "Dismiss the alerts.", "monitor"),
    Action("pause", "p", "Pause run", "Pause the run, or let it go on.", "monitor", changes_run=True, footer=True),
    Action("stop", "x", "Stop run", "Stop (asks); again: kill.", "monitor", changes_run=True, footer=True),
    Action("resume", "r", "Resume", "Continue what stopped or failed.", "monitor", changes_run=True, footer=True),
    Action("scale", "y", "Lin/log", "Change the scale.", "compare", footer=True),
    Action("smooth", "s", "Smooth", "Change between raw and smoothed.", "compare", footer=True),
    Action("term", "t", "Term", "Change what is drawn: a term of the loss, or top-1.", "compare", footer=True),
    Action("images", "i", "Images", "Show the images side by side, or the curves.", "compare", footer=True),
    Action("zoom_in", "plus,equals_sign", "Zoom in", "Show fewer iterations.", "compare", call="zoom(2.0)"),
    Action("zoom_out", "minus", "Zoom out", "Show more iterations.", "compare", call="zoom(0.5)"),
    Action("reset", "0", "Whole", "Show all iterations, without the read-out.", "compare"),
    Action("pan_left", "h", "Pan left", "Move the zoomed chart to earlier iterations.", "compare", call="pan(-0.25)"),
    Action("pan_right", "l", "Pan right", "Move the zoomed chart to later iterations.", "compare", call="pan(0.25)"),
    Action("cursor_left", "left_square_bracket", "Before", "Read-out or image before.", "compare", call="cursor(-1)"),
    Action("cursor_right", "right_square_bracket", "After", "Read-out or image after.", "compare", call="cursor(1)"),
    Action("export", "E", "Export", "Write the charts as SVG, PNG and CSV.", "compare"),
)  # fmt: skip

OWN_KEYS = """## Keys of your own

`$XDG_CONFIG_HOME/wmdd-tui/keys.toml` (by default `~/.config/wmdd-tui/keys.toml`) gives an action, by its name in the
last column below, other keys; several are separated by commas. A key is a character (`o`, `O`), a name (`space`,
`plus`, `slash`, `left_square_bracket`, `f5`) or a combination (`ctrl+o`).

```toml
"runs.open" = "o"
"monitor.zoom_in" = "plus,z"
```

An unknown action, a word that is no key, or a key that would mean two things on one screen is refused at the start,
with exit code 2 and a message that names the entry."""

KEY_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "escape": "esc",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
}


def of_scope(scope: Scope) -> list[Action]:
    return [action for action in ACTIONS if action.scope == scope]


def in_palette(scope: Scope | None, readonly: bool) -> list[Action]:
    """What can be searched by name on a screen: all but the palette itself, and moving."""
    found = [*(of_scope(scope) if scope else []), *of_scope("app")]
    left_out = ("command_palette", "up", "down")
    return [one for one in found if one.id not in left_out and not (readonly and one.changes_run)]


def key_text(action: Action, keymap: Mapping[str, str] | None = None) -> str:
    """The keys as a person reads them, the user's own where a key map names any."""
    keys = (keymap or {}).get(action.name, action.key)
    return " or ".join(KEY_NAMES.get(key, key) for key in keys.split(","))


def changes_run(scope: str, call_name: str) -> bool:
    """Whether an action, by the name of its method, would change a run."""
    return any(
        action.changes_run
        for action in ACTIONS
        if action.scope == scope and action.action.partition("(")[0] == call_name
    )


def markdown() -> str:
    """The page of keys."""
    lines = ["# Keys", "", "Generated by `python -m wmdd_tui.actions`; do not edit.", ""]
    lines += ["With `--readonly`, the keys marked † do nothing.", "", *OWN_KEYS.splitlines(), ""]
    for scope, title in SCOPES.items():
        lines += [f"## {title}", "", "| key | action | what it does | name |", "|---|---|---|---|"]
        for action in of_scope(scope):
            mark = " †" if action.changes_run else ""
            lines.append(f"| `{key_text(action)}` | {action.title}{mark} | {action.help} | `{action.name}` |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
