"""What a run will amount to, beside its form: warnings and two lines below it, the table of stages in the preview.

The texts are pure functions; ``wmdd-tui config check`` prints the same.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace

from textual.widgets import Static

from wmdd_tui.quantities import duration, size
from wmdd_tui.store.estimate import NO_MEASUREMENT, Estimate, StageEstimate

#: From this error on a factor is clearer than a percentage.
WIDE = 0.6
NOT_YET = "estimating …"
#: Columns and rows of the brief estimate on the narrowest screen, and how many of the rows warnings may take.
COLUMNS, ROWS, WARNING_ROWS = 78, 4, 2
#: How warnings begin with which a run is not launched without a question: it would hardly reach its end.
GRAVE = ("NOT ENOUGH", "YOUR QUOTA IS TOO SMALL")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def error_text(error: float) -> str:
    """Within 18 %, or a factor where the error is wide; nothing for none."""
    if not error:
        return ""
    return f"within {100 * error:.0f} %" if error < WIDE else f"within a factor of {1 + error:.1f}"


def time_text(found: Estimate) -> str:
    """The time in all with its error and what it rests on, or why there is none."""
    if found.seconds is None:
        return f"time: {NO_MEASUREMENT}" if any(NO_MEASUREMENT in note for note in found.unknown) else "time unknown"
    basis = _count(found.runs, "run") + " here" if found.runs else NO_MEASUREMENT
    return f"about {duration(found.seconds)} {error_text(found.seconds_error)} ({basis})"


def memory_text(found: Estimate) -> str:
    """The peak of memory with its error, and what is free."""
    what = "GPU memory" if found.cuda else "memory"
    needed = "unknown" if found.memory is None else f"{size(found.memory)} {error_text(found.memory_error)}"
    free = f", {size(found.memory_free)} free" if found.memory_total else ""
    return f"{what} {needed}{free}"


def grave(found: Estimate) -> list[str]:
    """The warnings that call for a question before the run is launched."""
    return [warning for warning in found.warnings if warning.startswith(GRAVE)]


def brief(found: Estimate, columns: int = COLUMNS) -> list[str]:
    """Warnings, two lines of figures, and what is not known.

    A warning has one line of so many columns, and where room is short so has each line of figures: they stand in whole
    in the preview.
    """
    disk = "" if found.disk is None else f"writes {size(found.disk)}, "
    room = f"{disk}{size(found.disk_free)} free"
    if found.data is None:
        lines = ["images not counted", room]
    else:
        made = f"{_count(found.images, 'image')} in {_count(found.chunks, 'chunk')}"
        steps = f" · {_count(found.iterations, 'iteration')}" if found.iterations else ""
        lines = [f"{made}{steps} · {time_text(found)}", f"{memory_text(found)} · {room}"]
    unknown = [note for note in found.unknown if NO_MEASUREMENT not in note]
    if not found.warnings:
        return [*lines, f"! {unknown[0]}{_more(len(unknown) - 1)}"] if unknown else lines
    shown = found.warnings[:WARNING_ROWS]
    more = _more(len(found.warnings) + len(unknown) - len(shown))
    told = [_cut(f"! {warning}", columns) for warning in shown[:-1]]
    told.append(_cut(f"! {shown[-1]}", columns - len(more)) + more)
    if sum(len(textwrap.wrap(line, columns)) for line in lines) > ROWS - len(told):
        lines = [_cut(line, columns) for line in lines]
    return [*told, *lines]


def _more(count: int) -> str:
    return f" (and {count} more: f2)" if count else ""


def _cut(line: str, columns: int) -> str:
    """A line, or its first words and the key that shows it in whole."""
    return textwrap.shorten(line, max(columns, COLUMNS // 2), placeholder=" … (f2)")


def table(found: Estimate) -> list[str]:
    """The stages, one a line, the sums, what they rest on, warnings, and what is not known."""
    lines = []
    if found.data is not None:
        data = found.data
        lines.append(f"{data.classes} classes, {data.train} training and {data.val} validation images")
        lines.append(
            f"{_count(found.images, 'image')} in {_count(found.chunks, 'chunk')}, "
            f"{_count(found.iterations, 'iteration')} on {found.device}"
        )
        lines += ["", f"{'stage':11} {'time':>8} {'memory':>11} {'disk':>11}"]
        lines += [_row(stage) for stage in found.stages]
        sums = (
            duration(found.seconds) or "unknown",
            "unknown" if found.memory is None else size(found.memory),
            "unknown" if found.disk is None else size(found.disk),
        )
        lines += [f"{'in all':11} {sums[0]:>8} {sums[1]:>11} {sums[2]:>11}", ""]
    lines += [*_basis(found), *(f"! {warning}" for warning in found.warnings)]
    return lines + [f"? {note}" for note in found.unknown]


def _row(stage: StageEstimate) -> str:
    time = "cached" if stage.reused else "?" if stage.seconds is None else duration(stage.seconds)
    memory = "?" if stage.memory is None else size(stage.memory) if stage.memory else ""
    disk = "?" if stage.disk is None else size(stage.disk) if stage.disk else ""
    return f"{stage.stage:11} {time:>8} {memory:>11} {disk:>11}".rstrip()


def _basis(found: Estimate) -> list[str]:
    lines = []
    if found.seconds is not None:
        runs = _count(found.runs, "run")
        if not found.runs:
            rests = f"from figures of another machine: {NO_MEASUREMENT}"
        elif found.checked:
            rests = f"learnt from {runs} on this device, the error measured on them"
        else:
            rests = f"learnt from {runs} on this device, the error not yet measured on it"
        lines.append(f"time {error_text(found.seconds_error)}: {rests}")
    if found.memory is not None:
        kind = "allocated on the GPU" if found.cuda else "resident, with the process itself and the images"
        runs = _count(found.memory_runs, "run")
        rests = f"corrected by {runs} on this device" if found.memory_runs else "calculated, not measured here"
        free = f"; {size(found.memory_free)} of {size(found.memory_total)} free" if found.memory_total else ""
        lines.append(f"memory {error_text(found.memory_error)}: {kind}; {rests}{free}")
    return [*lines, f"disk: {size(found.disk_free)} free where the run is written"]


class PlanView(Static):
    """The brief estimate. Texts are shown literally."""

    def __init__(self, id: str) -> None:
        super().__init__(NOT_YET, id=id, markup=False)
        self._found: Estimate | None = None

    def show(self, found: Estimate) -> None:
        """Show an estimate; one with a warning stands out."""
        self._found = found
        self.set_class(bool(found.warnings), "-warned")
        self._fit()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """Say it in the columns there are."""
        if self._found is not None:
            self.update("\n".join(brief(self._found, self.size.width or COLUMNS)))

    def fail(self, reason: str) -> None:
        """Say why there is no estimate."""
        self._found = None
        self.set_class(True, "-warned")
        self.update(f"no estimate: {reason}")


class StageTable(Static):
    """The estimate by stage."""

    def __init__(self, id: str) -> None:
        super().__init__(NOT_YET, id=id, markup=False)

    def show(self, found: Estimate) -> None:
        """Show an estimate, what is to be warned of first."""
        warnings = [f"! {warning}" for warning in found.warnings]
        lines = [*warnings, *([""] if warnings else []), *table(replace(found, warnings=()))]
        self.update("\n".join(lines) + "\n")
