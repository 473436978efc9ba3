"""Runs side by side: the settings that differ, and what came out. One definition for screen and command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine import events
from engine.config import STAGES, RunConfig, option_keys
from engine.errors import EngineError, InputError
from engine.rundir import RunDir, state_of
from wmdd_tui.names import as_name, printable
from wmdd_tui.store.history import Report, all_events, share_of, silent
from wmdd_tui.store.runs import read_report
from wmdd_tui.store.view import TERMS, number

#: Stands for a setting of a run whose configuration cannot be read.
UNKNOWN = "?"
#: No figure of a report is greater; one beyond would fill its table with digits.
MOST_FIGURE = 1e12


@dataclass(frozen=True)
class Result:
    """What came out of one run. Accuracies in percent, times in seconds; None or absent where it is not known.

    ``losses`` are of the last iteration, averaged over the chunks; ``w2`` is the mean W2² over the classes.
    """

    id: str
    path: str
    name: str
    state: str
    teacher_top1: float | None = None
    student_top1: float | None = None
    student_top5: float | None = None
    best_top1: float | None = None
    best_top5: float | None = None
    best_epoch: int | None = None
    stages: dict[str, float] = field(default_factory=dict)
    cached: tuple[str, ...] = ()
    seconds: float | None = None
    losses: dict[str, float] = field(default_factory=dict)
    w2: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Results in the order the runs were named, and the settings that are not the same in all of them."""

    results: list[Result]
    differences: list[tuple[str, list[Any]]]


def differing(configs: Sequence[RunConfig | None]) -> list[tuple[str, list[Any]]]:
    """Options whose values are not the same in all runs, with each run's value; ``UNKNOWN`` without a configuration."""
    dumps = [None if config is None else config.model_dump(mode="json") for config in configs]
    rows = []
    for key in option_keys():
        values = [UNKNOWN if dump is None else _value(dump, key) for dump in dumps]
        if any(value != values[0] for value in values[1:]):
            rows.append((key, values))
    return rows


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def compare(runs: Sequence[RunDir], report: Report = silent) -> Comparison:
    """Read two or more runs. Raises InputError for fewer, or for a run named twice."""
    if len(runs) < 2:
        raise InputError("compare takes two runs or more, one was given", "`wmdd-tui runs` lists the runs there are")
    paths = [run.path.resolve() for run in runs]
    twice = next((run.id for run, path in zip(runs, paths, strict=True) if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"run {twice} is named twice", "name each run once, by its id where a name is not enough")
    configs = [_config(run) for run in runs]
    results = [
        read_result(run, config, share_of(report, index, len(runs)))
        for index, (run, config) in enumerate(zip(runs, configs, strict=True))
    ]
    return Comparison(results, differing(configs))


def _config(run: RunDir) -> RunConfig | None:
    try:
        return run.config()
    except EngineError:
        return None


def _name(run: RunDir, config: RunConfig | None) -> str:
    return (config.name or config.preset if config else "") or run.id


def read_result(run: RunDir, config: RunConfig | None, report: Report = silent) -> Result:
    """What came out of a run, from its report and its events; a run under way has what it has so far."""
    last: dict[int, tuple[int, dict[str, float]]] = {}
    epochs: dict[int, tuple[float, float | None]] = {}
    teacher: float | None = None
    seconds: dict[str, float] = {}
    cached: set[str] = set()
    for event in all_events(run, report):
        match event:
            case events.Iters():
                _take_losses(last, event)
            case events.Metrics(stage="train", top1=float(top1)):
                epochs[event.epoch] = (top1, event.top5)
            case events.Metrics(stage="squeeze" | "teacher", top1=float(top1)):
                teacher = top1
            case events.Stage(what="end"):
                stage = as_name(event.stage)
                seconds[stage] = max(event.seconds, seconds.get(stage, 0.0))
                (cached.add if event.cached else cached.discard)(stage)
    written = read_report(run)
    stages = {**seconds, **_figures(written.get("stages"))}
    written = _figures(written)
    best = max(epochs, key=lambda epoch: epochs[epoch][0], default=None)
    final = max(epochs, default=None)
    return Result(
        id=run.id,
        path=str(run.path),
        name=_name(run, config),
        state=state_of(run) if config else "unreadable",
        teacher_top1=_first(written.get("teacher_top1"), teacher),
        student_top1=_first(written.get("student_top1"), None if final is None else epochs[final][0]),
        student_top5=_first(written.get("student_top5"), None if final is None else epochs[final][1]),
        best_top1=_first(None if best is None else epochs[best][0], written.get("best_top1")),
        best_top5=None if best is None else epochs[best][1],
        best_epoch=_first(best, int(written["best_epoch"]) if "best_epoch" in written else None),
        stages={stage: stages[stage] for stage in (*STAGES, *sorted(set(stages) - set(STAGES))) if stage in stages},
        cached=tuple(stage for stage in STAGES if stage in cached),
        seconds=_first(written.get("seconds"), sum(stages.values()) if stages else None),
        losses=_mean([terms for _, terms in last.values()]),
        w2=written.get("w2"),
    )


def _figures(values: Any) -> dict[str, Any]:
    """The numbers among a report's values; a report edited by hand may hold anything."""
    if not isinstance(values, dict):
        return {}
    known = {as_name(name): value for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in known.items() if abs(value) <= MOST_FIGURE}


def _first(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _take_losses(last: dict[int, tuple[int, dict[str, float]]], event: events.Iters) -> None:
    """Keep the terms of the latest iteration of the event's chunk."""
    end = event.first + len(event.total)
    if event.total and end >= last.get(event.chunk, (0, {}))[0]:
        terms = {term: number(getattr(event, term)[-1]) for term in TERMS if getattr(event, term)}
        last[event.chunk] = (end, terms)


def _mean(chunks: list[dict[str, float]]) -> dict[str, float]:
    return {
        term: sum(terms[term] for terms in chunks) / len(chunks)
        for term in TERMS
        if chunks and all(term in terms for terms in chunks)
    }


def labels(results: Sequence[Result]) -> list[str]:
    """A short name of each run: its name where no other run has it, else its id. Never more than one line."""
    return _unique([(result.id, result.name) for result in results])


def run_labels(runs: Sequence[RunDir]) -> list[str]:
    """``labels`` of runs of which only the configuration is read."""
    return _unique([(run.id, _name(run, _config(run))) for run in runs])


def _unique(named: Sequence[tuple[str, str]]) -> list[str]:
    names = [" ".join(as_name(name).split()) for _, name in named]
    return [name if names.count(name) == 1 else as_name(ident) for name, (ident, _) in zip(names, named, strict=True)]


def result_rows(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """The result table as texts: a figure a row, a run a cell; rows that no run has are left out."""
    rows: list[tuple[str, list[str]]] = [("state", [result.state for result in results])]

    def add(title: str, values: list[Any], form: str) -> None:
        if any(value is not None for value in values):
            rows.append((title, ["" if value is None else format(value, form) for value in values]))

    for title, name, form in (
        ("teacher top-1 %", "teacher_top1", ".2f"),
        ("student top-1 % (last)", "student_top1", ".2f"),
        ("student top-5 % (last)", "student_top5", ".2f"),
        ("student top-1 % (best)", "best_top1", ".2f"),
        ("student top-5 % (best)", "best_top5", ".2f"),
        ("best epoch", "best_epoch", "d"),
        ("mean W2²", "w2", ".6g"),
    ):
        add(title, [getattr(result, name) for result in results], form)
    for term in TERMS:
        add(f"final {term} loss", [result.losses.get(term) for result in results], ".6g")
    for stage in dict.fromkeys(stage for result in results for stage in result.stages):
        rows.append((f"{stage} s", [_seconds(result, stage) for result in results]))
    add("all stages s", [result.seconds for result in results], ".1f")
    return rows


def _seconds(result: Result, stage: str) -> str:
    if stage not in result.stages:
        return ""
    return f"{result.stages[stage]:.1f}" + (" (cache)" if stage in result.cached else "")


def setting_text(value: Any) -> str:
    """A setting's value as a person writes it."""
    if isinstance(value, list):
        value = ", ".join(str(part) for part in value)
    return "(empty)" if value == "" else " ".join(printable(str(value)).splitlines())


def as_json(found: Comparison) -> dict[str, Any]:
    """Plain values for JSON; a loss that is not finite is the text "nan", "inf" or "-inf", as in the event file."""
    runs = [asdict(result) for result in found.results]
    for run in runs:
        run["losses"] = {term: value if math.isfinite(value) else str(value) for term, value in run["losses"].items()}
    return {"runs": runs, "differences": dict(found.differences)}
