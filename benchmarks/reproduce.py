"""ImageNette as the paper has it and past it: all studies of ``benchmarks/studies/imagenette``, and one table.

``python benchmarks/reproduce.py --data DIR --out OUT`` (``make reproduce-imagenette DATA=DIR OUT=OUT``) carries out the
studies one after another in calls of at most ``--minutes``, each of which goes on where the one before stopped. So does
this command itself: broken off at any moment, it is given again. ``--once`` makes one call and ends with exit code 3
where there is more to do. ``--rehearsal`` does the same end to end with a small network, few photographs and steps.

OUT receives ``results.md`` and ``results.json`` (accuracies as mean ± sample standard deviation over the seeds, beside
the published ones; seconds, rate and peak of memory of every stage; the label-robust score; storage), the contact
sheets, a folder for each study, and the runs themselves under ``home`` unless WMDD_HOME names another place.
Torch-free.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from engine import events
from engine.errors import EngineError
from engine.rundir import RunDir, home, write_whole
from wmdd_tui.store import study, study_table

STUDIES = Path(__file__).parent / "studies" / "imagenette"
#: Top-1 in percent as Liu et al. (ICCV 2025) publish it, by the label of a row.
PAPER = {
    "paper, IPC 1": 40.2,
    "paper, IPC 10": 64.8,
    "paper, IPC 50": 83.5,
    "paper, IPC 100": 87.1,
    "Wasserstein, per-class BN": 64.7,
    "CE, per-class BN": 63.8,
    "Wasserstein, global BN": 60.7,
    "CE, global BN": 54.2,
}
#: The best published figures under other protocols (FADRM+ at IPC 10, DELT at IPC 50).
BEST = {"best, IPC 10": 69.0, "best, IPC 50": 88.2}
#: The set whose label-robust score is taken: the first finished run of this study's first row.
SCORED = "2-best"
SCORE = "score"
#: What a call printed, in the folder of its study.
ANSWER = "answer.json"
REHEARSAL = [
    "data.resolution=32", "teacher.arch=convnet3", "teacher.width=8", "squeeze.epochs=2", "recover.iterations=4",
    "recover.preview_every=2", "recover.patch_crops=2", "barycenter.restarts=1", "barycenter.iterations=5",
    "train.epochs=4", "train.batch_size=20", "run.threads=1",
]  # fmt: skip
#: Photographs of each class that a rehearsal takes of the true data.
REHEARSED = {"train": 24, "val": 12}
MORE_TO_DO = 3


@dataclass
class StageFacts:
    """One stage of one run: seconds, units of work done in them, greatest memory seen (device, else resident)."""

    seconds: float = 0.0
    done: int = 0
    unit: str = ""
    peak: int = 0
    cached: bool = False

    def rate(self) -> float | None:
        """Units a second of a stage that was not taken from the cache."""
        return self.done / self.seconds if self.seconds and self.done and not self.cached else None


@dataclass
class Work:
    """What is carried out: the study files, common settings, and where everything goes."""

    out: Path
    assignments: list[str]
    jobs: int
    minutes: float
    files: list[Path]
    rehearsal: bool = False


def small_data(source: Path, target: Path) -> Path:
    """A tree of links to the first photographs of every class."""
    for split, most in REHEARSED.items():
        for folder in sorted(one for one in (source / split).iterdir() if one.is_dir()):
            place = target / split / folder.name
            place.mkdir(parents=True, exist_ok=True)
            for photograph in sorted(folder.iterdir())[:most]:
                link = place / photograph.name
                if not link.exists():
                    link.symlink_to(photograph.resolve())
    return target


def small_studies(files: Sequence[Path], folder: Path) -> list[Path]:
    """The study files with one seed, and with the settings of a rehearsal after each row's own."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for file in files:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
        values["seeds"] = [0]
        for row in values["row"]:
            row["set"] = [*row.get("set", []), *REHEARSAL]
        made.append(folder / file.name)
        made[-1].write_text(tomli_w.dumps(values), encoding="utf-8")
    return made


def call(work: Work, name: str, command: Sequence[str]) -> int:
    """One call of ``wmdd-tui`` within the minutes; its time is kept in ``calls.jsonl``. Returns its exit code."""
    started, began = time.time(), time.monotonic()
    arguments = [*command, "--minutes", str(work.minutes), "--jobs", str(work.jobs), "--out", str(work.out / name)]
    (work.out / name).mkdir(exist_ok=True)
    with (work.out / name / ANSWER).open("wb") as answer:
        code = subprocess.run([sys.executable, "-m", "wmdd_tui", *arguments, "--json"], stdout=answer).returncode
    told = {"stage": name, "started": round(started), "seconds": round(time.monotonic() - began, 1), "exit": code}
    with (work.out / "calls.jsonl").open("a", encoding="utf-8") as kept:
        kept.write(json.dumps(told) + "\n")
    return code


def set_commands(assignments: Sequence[str]) -> list[str]:
    """``--set`` for each of some settings."""
    return [text for assignment in assignments for text in ("--set", assignment)]


def finished_of(work: Work, file: Path) -> list[study.Found]:
    """The trials of a study and the runs that belong to them."""
    return study.find_runs(study.trials_of_file(study.read_study(file), file.parent, work.assignments, file.stem))


def score_command(work: Work) -> list[str]:
    """The label-robust score of one finished set of the best preset. Raises SystemExit where there is none."""
    file = next(one for one in work.files if one.stem == SCORED)
    first = next((one for one in finished_of(work, file) if one.run is not None and one.state == "finished"), None)
    if first is None or first.run is None:
        raise SystemExit(f"no run of {file.stem} is finished; {work.out / file.stem} says what became of them")
    return ["evaluate", str(first.run.images), "--lrs", "--repeats", str(len(study.read_study(file).seeds))]


def stages_of(run: RunDir) -> dict[str, StageFacts]:
    """Seconds, units and memory of every stage of a run, from its events; several processes' stages add up."""
    found: dict[str, StageFacts] = {}
    current = ""
    for event in events.read(run.events_file):
        if isinstance(event, events.Stage):
            current = event.stage if event.what == "begin" else ""
            if event.what == "end":
                facts = found.setdefault(event.stage, StageFacts())
                facts.seconds = max(facts.seconds, event.seconds)
                facts.cached = facts.cached or event.cached
        elif isinstance(event, events.Progress) and event.stage in found | {current: None}:
            facts = found.setdefault(event.stage, StageFacts())
            facts.done, facts.unit = max(facts.done, event.done), event.unit
        elif isinstance(event, events.Memory) and current:
            facts = found.setdefault(current, StageFacts())
            facts.peak = max(facts.peak, event.peak or event.rss)
    return found


def sheets(found: Sequence[study.Found], folder: Path) -> list[str]:
    """Copy the contact sheets of some runs; their names."""
    folder.mkdir(exist_ok=True)
    names = []
    for one in found:
        sheet = one.run.report / "contact_sheet.png" if one.run is not None else None
        if sheet is not None and sheet.is_file():
            name = f"{one.trial.row}-s{one.trial.seed}.png".replace(", ", "-").replace(" ", "-")
            write_whole(folder / name, sheet.read_bytes())
            names.append(name)
    return names


def accuracy_table(lines: Sequence[study_table.Line]) -> list[str]:
    """Rows beside what is published."""
    out = [
        "| row | seeds | student top-1 % | published | teacher % | images, labels (kB) |",
        "|---|---|---|---|---|---|",
    ]
    for line in lines:
        published = PAPER.get(line.row) or BEST.get(line.row)
        source = "" if published is None else f"{published}" + ("" if line.row in PAPER else ", another protocol")
        top1 = line.student_top1.text() if line.student_top1 else "not finished"
        teacher = line.teacher_top1.text() if line.teacher_top1 else ""
        storage = f"{line.image_bytes / 1e3:.0f}, {line.label_bytes / 1e3:.0f}" if line.image_bytes else ""
        seeds = ", ".join(map(str, line.seeds))
        out.append(f"| {line.row} | {seeds} | {top1} | {source} | {teacher} | {storage} |")
    return out


def stage_table(found: Sequence[study.Found]) -> tuple[list[str], list[dict[str, Any]]]:
    """Every stage of some runs that was not taken from the cache."""
    out = ["| row | seed | stage | seconds | rate | peak memory (MiB) |", "|---|---|---|---|---|---|"]
    facts = []
    for one in found:
        if one.run is None:
            continue
        for name, stage in stages_of(one.run).items():
            if stage.cached:
                continue
            rate = stage.rate()
            said = "" if rate is None else f"{rate:.4g} {stage.unit}/s"
            row = (one.trial.row, one.trial.seed, name, f"{stage.seconds:.1f}", said, f"{stage.peak / 2**20:.0f}")
            out.append("| " + " | ".join(map(str, row)) + " |")
            facts.append(
                {"row": one.trial.row, "seed": one.trial.seed, "stage": name, "seconds": round(stage.seconds, 3),
                 "rate": rate, "unit": stage.unit, "peak_bytes": stage.peak, "run": one.run.id}
            )  # fmt: skip
    return out, facts


def score_answer(work: Work) -> dict[str, Any]:
    """What ``wmdd-tui evaluate --lrs`` found; empty where it has not come to an end."""
    try:
        answer = json.loads((work.out / SCORE / ANSWER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return answer if isinstance(answer, dict) and answer.get("lrs") else {}


def score_table(answer: dict[str, Any]) -> list[str]:
    """HLR and IOR in points, LRS, as mean ± sample standard deviation over the student's seeds."""
    out = ["| | mean | standard deviation | n |", "|---|---|---|---|"]
    for name, found in answer["lrs"].items():
        deviation = "" if found["deviation"] is None else f"{found['deviation']:.3f}"
        out.append(f"| {name.upper()} | {found['mean']:.3f} | {deviation} | {found['count']} |")
    return out


def write_results(work: Work) -> None:
    """Sum up what there is so far. Raises OSError."""
    text = ["# ImageNette: results", ""]
    if work.rehearsal:
        text += ["A rehearsal: a tiny network, few photographs and few steps. The accuracies mean nothing.", ""]
    text += [f"Settings for every row: {', '.join(work.assignments)}.", ""]
    values: dict[str, Any] = {"assignments": work.assignments, "studies": {}}
    everything: dict[str, study.Found] = {}
    for file in work.files:
        found = finished_of(work, file)
        # Rows of several studies may be the same work, and its run is shown under the first.
        for one in found:
            if one.run is not None and one.state == "finished":
                everything.setdefault(one.run.id, one)
        lines = study_table.lines_of(found)
        text += [f"## {file.stem}", "", *accuracy_table(lines), ""]
        values["studies"][file.stem] = study_table.as_json(lines)
    answer = score_answer(work)
    if answer:
        values["score"] = answer
        text += ["## label-robust score of the best preset's images", "", *score_table(answer), ""]
    pictures = sheets(list(everything.values()), work.out / "sheets")
    table, values["stages"] = stage_table(list(everything.values()))
    text += ["## stages", "", *table, "", "## contact sheets", "", *(f"- [{name}](sheets/{name})" for name in pictures)]
    calls = work.out / "calls.jsonl"
    if calls.is_file():
        values["calls"] = [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()]
        text += ["", "## calls", "", "| stage | seconds | exit code |", "|---|---|---|"]
        text += [f"| {one['stage']} | {one['seconds']} | {one['exit']} |" for one in values["calls"]]
    write_whole(work.out / "results.md", ("\n".join(text) + "\n").encode())
    write_whole(work.out / "results.json", json.dumps(values, indent=1, ensure_ascii=False).encode())


def carry_out(work: Work, once: bool) -> int:
    """Call after call until all is done; results are written after each. Returns the exit code."""
    names = [file.stem for file in work.files] + [SCORE]
    for name in names:
        while True:
            file = next((one for one in work.files if one.stem == name), None)
            command = ["sweep", str(file)] if file else score_command(work)
            done = all(one.state == "finished" for one in finished_of(work, file)) if file else bool(score_answer(work))
            if done:
                break
            code = call(work, name, [*command, *set_commands(work.assignments if file else [])])
            write_results(work)
            if code not in (0, MORE_TO_DO):
                print(f"{name} ended with exit code {code}; `wmdd-tui runs` under WMDD_HOME={home()} says more")
                return code
            if once and (code == MORE_TO_DO or name != names[-1]):
                return MORE_TO_DO
            if code == 0:
                break
    write_results(work)
    print(f"all done: {work.out / 'results.md'}")
    return 0


def main() -> int:
    """Read the arguments and carry everything out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ of ImageNette")
    parser.add_argument("--out", type=Path, required=True, help="folder for results; the same one goes on")
    parser.add_argument("--minutes", type=float, default=9.0, help="longest call, after which the next one goes on")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; by default one, in a rehearsal one a core")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for every row")
    parser.add_argument("--once", action="store_true", help="make one call; exit code 3 where there is more to do")
    parser.add_argument("--rehearsal", action="store_true", help="the same in small, in minutes on a CPU")
    given = parser.parse_args()
    for split in ("train", "val"):
        if not (given.data / split).is_dir():
            parser.error(
                f"--data {given.data} has no folder {split}: name the unpacked ImageNette with train/ and val/"
            )
    out, data = given.out.expanduser().absolute(), given.data.expanduser().absolute()
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("WMDD_HOME", str(out / "home"))
    files = sorted(STUDIES.glob("*.toml"))
    jobs = given.jobs or 1
    if given.rehearsal:
        data = small_data(data, out / "rehearsal" / "data")
        files = small_studies(files, out / "rehearsal")
        jobs = given.jobs or os.cpu_count() or 1
    assignments = [f"data.path={json.dumps(str(data), ensure_ascii=False)}", *given.set]
    try:
        return carry_out(Work(out, assignments, jobs, given.minutes, files, given.rehearsal), given.once)
    except EngineError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
