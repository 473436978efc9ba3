"""Small runs whose every byte is known, and what to look at in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from engine import events, presets, rundir
from engine.config import RunConfig, override

#: A few seconds of work, every stage of which has several units that a checkpoint can lie between.
SMALL = [
    "ipc=2", "data.max_per_class=20", "teacher.width=8", "squeeze.epochs=2", "squeeze.batch_size=20",
    "statistics.batch_size=8", "barycenter.restarts=1", "recover.iterations=30", "recover.batch_size=10",
    "recover.checkpoint_every=10", "recover.preview_every=15", "relabel.batch_size=5", "train.epochs=6",
    "train.batch_size=5", "train.eval_every=3", "run.threads=1", "run.use_cache=false", "run.checkpoint_seconds=0.05",
    'run.device="cpu"',
]  # fmt: skip
STAGES = ("squeeze", "statistics", "barycenter", "recover", "relabel", "train")


def small(*changes: str) -> RunConfig:
    """The digits demo in small."""
    return override(presets.get("digits"), [*SMALL, *changes])


def content(run: rundir.RunDir) -> dict[str, str]:
    """Digest of every image, soft label and student file, and the accuracies and W2² of the report."""
    files = [*run.images.rglob("*.png"), *run.labels.iterdir(), *run.student.iterdir()]
    found = {str(file.relative_to(run.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    report = json.loads(run.report_file.read_bytes())
    facts = ("teacher_top1", "student_top1", "student_top5", "best_top1", "best_epoch", "w2_per_class", "quality")
    return found | {name: json.dumps(report[name]) for name in facts}


def seen(run: rundir.RunDir) -> list[events.AnyEvent]:
    """All events so far; none where there is no file yet."""
    return list(events.read(run.events_file)) if run.events_file.exists() else []


def last_end(run: rundir.RunDir) -> events.End:
    return [event for event in seen(run) if isinstance(event, events.End)][-1]


def said(run: rundir.RunDir) -> list[str]:
    """The lines of the log."""
    return [event.message for event in seen(run) if isinstance(event, events.Log)]


def stage_at(found: list[events.AnyEvent]) -> str:
    """The stage that has begun and not ended; "data" before any."""
    stage = "data"
    for event in found:
        if isinstance(event, events.Stage):
            stage = event.stage if event.what == "begin" else f"after {event.stage}"
    return stage


def stage_seconds(run: rundir.RunDir) -> dict[str, float]:
    report = json.loads(run.report_file.read_bytes())
    return {str(name): float(seconds) for name, seconds in report["stages"].items()}


def _digits() -> Iterator[tuple[str, Path, Image.Image]]:
    bunch = load_digits()
    counts: dict[int, int] = {}
    for pixels, label in zip(bunch.images, bunch.target.tolist(), strict=True):
        counts[label] = number = counts.get(label, -1) + 1
        if label < 3 and number < 24:
            split = "val" if number % 4 == 3 else "train"
            yield split, Path(str(label), f"{number:03d}.png"), Image.fromarray((pixels * 15.9).astype("uint8"))


def tree_of_digits(root: Path) -> Path:
    """Three digits as an ImageFolder tree: 18 training and 6 validation images each."""
    for split, name, image in _digits():
        (root / split / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / split / name)
    return root


def from_tree(root: Path, *changes: str) -> RunConfig:
    """A run whose images are decoded whenever they are needed."""
    return small('data.dataset="imagefolder"', f"data.path={json.dumps(str(root))}", "data.storage=stream", *changes)
