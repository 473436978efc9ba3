"""What a study found: one line a row, mean and standard deviation over its seeds; as text, JSON and picture."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.rundir import RunDir, write_whole
from wmdd_tui.store.runs import read_report
from wmdd_tui.store.study import Found


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (None for a single value) of the values of some seeds."""

    mean: float
    deviation: float | None
    count: int

    def text(self, form: str = ".2f") -> str:
        if self.deviation is None:
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} ± {self.deviation:{form}}"


@dataclass(frozen=True)
class Line:
    """A row of the table. Accuracies in percent, ``seconds`` of all stages of one run, sizes in bytes of one run."""

    row: str
    seeds: list[int]
    missing: list[int]
    student_top1: Spread | None
    student_top5: Spread | None
    teacher_top1: Spread | None
    teacher_on_images: Spread | None
    feature: Spread | None
    bn: Spread | None
    w2: Spread | None
    seconds: Spread | None
    image_bytes: int
    label_bytes: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and deviation of the values there are."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


def lines_of(found: Sequence[Found]) -> list[Line]:
    """One line for each row, in the study's order."""
    lines = []
    for row in dict.fromkeys(one.trial.row for one in found):
        own = [one for one in found if one.trial.row == row]
        done = [(one.trial.seed, one.run) for one in own if one.run is not None and one.state == "finished"]
        reports = [read_report(run) for _, run in done]
        quality = [_quality(report) for report in reports]
        lines.append(
            Line(
                row=row,
                seeds=[seed for seed, _ in done],
                missing=[one.trial.seed for one in own if one.state != "finished"],
                student_top1=spread([_number(report, "student_top1") for report in reports]),
                student_top5=spread([_number(report, "student_top5") for report in reports]),
                teacher_top1=spread([_number(report, "teacher_top1") for report in reports]),
                teacher_on_images=spread([_number(one, "teacher_top1") for one in quality]),
                feature=spread([_number(one, "feature") for one in quality]),
                bn=spread([_number(one, "bn") for one in quality]),
                w2=spread([_number(report, "w2") for report in reports]),
                seconds=spread([_number(report, "seconds") for report in reports]),
                image_bytes=_bytes(done[0][1], "images") if done else 0,
                label_bytes=_bytes(done[0][1], "labels") if done else 0,
            )
        )
    return lines


def _number(values: dict[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) else None


def _quality(report: dict[str, Any]) -> dict[str, Any]:
    quality = report.get("quality")
    images = quality.get("images") if isinstance(quality, dict) else None
    return images if isinstance(images, dict) else {}


def _bytes(run: RunDir, folder: str) -> int:
    files = (run.path / folder).rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".json")


HEAD = ("row", "n", "student top-1 %", "top-5 %", "teacher %", "teacher on images %", "feature", "BN", "W2²", "s")
#: Columns of ``HEAD`` by what they tell, and how narrow the first may become and how far apart they stand.
TELLING = (0, 1, 2, 4, 9, 3, 5, 8, 7, 6)
LEAST_NAME, GAP = 16, 3


def cells(line: Line) -> tuple[str, ...]:
    """The line as texts under ``HEAD``."""

    def text(value: Spread | None, form: str = ".2f") -> str:
        return "" if value is None else value.text(form)

    return (
        line.row,
        f"{len(line.seeds)}" + (f" of {len(line.seeds) + len(line.missing)}" if line.missing else ""),
        text(line.student_top1),
        text(line.student_top5),
        text(line.teacher_top1),
        text(line.teacher_on_images, ".1f"),
        text(line.feature, ".4g"),
        text(line.bn, ".4g"),
        text(line.w2, ".4g"),
        text(line.seconds, ".0f"),
    )


def fitting(rows: Sequence[Sequence[str]], filled: Sequence[int], width: int) -> list[int]:
    """The columns of ``filled`` that have room side by side in a terminal, taken by what they tell, in order.

    Values are not broken, headings only between words; the first column is, beyond ``LEAST_NAME``.
    """
    kept: list[int] = []
    width += GAP - 1  # none after the last
    for index in TELLING:
        if index not in filled:
            continue
        values = max(len(row[index]) for row in rows)
        needed = max(min(values, LEAST_NAME) if index == 0 else values, *map(len, HEAD[index].split())) + GAP
        if needed > width:
            break
        width -= needed
        kept.append(index)
    return sorted(kept)


def markdown(title: str, lines: Sequence[Line]) -> str:
    """The table as Markdown; columns that no row fills are left out."""
    rows = [cells(line) for line in lines]
    kept = [index for index in range(len(HEAD)) if any(row[index] for row in rows)]
    out = [f"## {title}", "", "| " + " | ".join(HEAD[index] for index in kept) + " |", "|" + "---|" * len(kept)]
    out += ["| " + " | ".join(row[index].replace("|", "\\|") for index in kept) + " |" for row in rows]
    return "\n".join(out) + "\n"


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [asdict(line) for line in lines]


def write_results(folder: Path, title: str, lines: Sequence[Line]) -> None:
    """Write ``results.md``, ``results.json`` and ``results.svg``. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.md", markdown(title, lines).encode())
    write_whole(folder / "results.json", json.dumps(as_json(lines), indent=1, ensure_ascii=False).encode())
    if any(line.student_top1 for line in lines):
        write_whole(folder / "results.svg", picture(title, lines))


def picture(title: str, lines: Sequence[Line]) -> bytes:
    """Student accuracy of each row with its spread, as SVG."""
    import matplotlib  # slow to import, and only pictures need it

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    from wmdd_tui.store.figures import COLOURS, STABLE  # and numpy, which commands without a picture need not pay

    shown = [(line, line.student_top1) for line in reversed(lines) if line.student_top1 is not None]
    with matplotlib.rc_context(STABLE):
        figure = Figure(figsize=(7, 0.8 + 0.4 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        axes.errorbar(
            [top.mean for _, top in shown],
            range(len(shown)),
            xerr=[top.deviation or 0.0 for _, top in shown],
            fmt="o", color=COLOURS[0], capsize=3,
        )  # fmt: skip
        axes.set_yticks(range(len(shown)), [line.row for line, _ in shown])
        axes.set_xlabel("student top-1 % (mean, standard deviation over seeds)")
        axes.set_title(title)
        axes.grid(axis="x", alpha=0.3)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
