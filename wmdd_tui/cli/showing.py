"""One run for people: what it is, what came out, and the settings that are its own.

A report is a file, which may hold anything: what is no number where one is expected is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.config import RunConfig
from engine.rundir import ALIVE, RESUMABLE
from wmdd_tui.names import as_name, printable
from wmdd_tui.quantities import LARGEST, duration, size

HEADING = 22
#: Of the report's quality: whose it is, and what is measured.
QUALITY_OF = {"images": "their quality", "random_real": "random photographs'"}
OF_QUALITY = {"teacher_top1": "teacher top-1", "top1": "top-1", "ce": "CE", "feature": "feature", "bn": "BN"}


def _number(value: Any, tell: Callable[[float], str]) -> str:
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST
    return tell(value) if known else ""


def _text(value: Any) -> str:
    return as_name(str(value)) if isinstance(value, str | int) else ""


def _percent(value: Any) -> str:
    return _number(value, lambda number: f"{number:.2f} %")


def _figure(value: Any) -> str:
    return _number(value, lambda number: f"{number:.4g}")


def _duration(value: Any) -> str:
    return _number(value, duration)


def _stages(value: Any) -> str:
    found = value.items() if isinstance(value, dict) else ()
    return ", ".join(f"{_text(stage)} {_duration(seconds)}" for stage, seconds in found if _duration(seconds))


def _labels(value: Any) -> str:
    facts = value if isinstance(value, dict) else {}
    parts = [_number(facts.get("bytes"), size), _number(facts.get("bits"), lambda bits: f"{bits:.0f} bits a logit")]
    parts.append(_number(facts.get("top_k") or None, lambda kept: f"the {kept:.0f} highest"))
    return ", ".join(part for part in parts if part)


#: What is shown, in this order: the key in the summary or the report, the heading, and how it is told.
FACTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("id", "run", _text),
    ("name", "name", _text),
    ("state", "state", _text),
    ("problem", "problem", _text),
    ("message", "message", _text),
    ("stage", "stage", _text),
    ("its_per_s", "iterations a second", _figure),
    ("eta_s", "left", _duration),
    ("path", "folder", lambda path: printable(str(path))),
    ("dataset", "data", _text),
    ("teacher", "teacher", _text),
    ("ipc", "images a class", _text),
    ("seed", "seed", _text),
    ("precision", "precision", _text),
    ("teacher_top1", "teacher top-1", _percent),
    ("student_top1", "student top-1", _percent),
    ("student_top5", "student top-5", _percent),
    ("best_top1", "best top-1", _percent),
    ("best_epoch", "best epoch", _text),
    ("w2", "mean W2²", _figure),
    ("image_count", "synthetic images", _text),
    ("labels", "soft labels", _labels),
    ("seconds", "took", _duration),
    ("stages", "stages", _stages),
)
#: Of these what is true of a run at work alone.
AT_WORK = frozenset({"its_per_s", "eta_s"})


def facts_told(facts: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a run's summary and report together, and how to go on where it has not come to its end."""
    state = _text(facts.get("state"))
    for key, heading, tell in FACTS:
        told = tell(facts[key]) if facts.get(key) is not None else ""
        if told and (key not in AT_WORK or state in ALIVE):
            yield f"{heading:{HEADING}} {told}"
        if key == "state" and state in RESUMABLE:
            yield f"{'go on with':{HEADING}} wmdd-tui resume {_text(facts.get('id'))}"
    quality = facts.get("quality")
    for name, judged in quality.items() if isinstance(quality, dict) else ():
        figures = {title: _figure(judged.get(key)) for key, title in OF_QUALITY.items() if isinstance(judged, dict)}
        told = ", ".join(f"{title} {figure}" for title, figure in figures.items() if figure)
        if told:
            yield f"{QUALITY_OF.get(name, _text(name)):{HEADING}} {told}"


def settings_told(settings: RunConfig) -> Iterator[str]:
    """Lines of the settings that are no defaults; names stand above them already."""
    from wmdd_tui.store.comparison import differing  # and numpy, which other commands need not pay for

    own = [(key, values[1]) for key, values in differing([RunConfig(), settings]) if key not in ("name", "seed", "ipc")]
    if own:
        yield "settings that are no defaults (all of them: --config)"
        yield from (f"  {key} = {as_name(str(value))}" for key, value in own)
