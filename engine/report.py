"""What a run leaves to read: ``report/report.json`` for machines, ``images/dataset.json`` beside the images."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from engine import __version__
from engine.context import Context
from engine.data import Dataset
from engine.outcome import Outcome
from engine.rundir import write_whole


def versions() -> dict[str, str]:
    """Versions of what determines a result."""
    return {
        "wmdd-tui": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": importlib.metadata.version("numpy"),
    }


def _accuracies(outcome: Outcome) -> dict[str, Any]:
    student = outcome.student
    return {
        "teacher_top1": outcome.teacher_top1,
        "student_top1": student.top1 if student else None,
        "student_top5": student.top5 if student else None,
        "best_top1": student.best_top1 if student else None,
        "best_epoch": student.best_epoch if student else None,
    }


def write_report(
    ctx: Context,
    dataset: Dataset,
    outcome: Outcome,
    students: Sequence[dict[str, Any]] = (),
    committee: Sequence[dict[str, Any]] = (),
) -> None:
    """Accuracies in percent, seconds of each stage, mean W2² over classes; one row a student and further teacher."""
    earlier: dict[str, float] = {}
    if ctx.run.report_file.is_file():
        earlier = json.loads(ctx.run.report_file.read_bytes()).get("stages", {})
    stages = {name: round(max(seconds, earlier.get(name, 0.0)), 3) for name, seconds in outcome.seconds.items()}
    facts = {
        "run_id": ctx.run.id,
        "run_dir": str(ctx.run.path),
        "seconds": round(sum(stages.values()), 3),
        "stages": stages,
        **_accuracies(outcome),
        "w2": sum(outcome.w2sq_C) / len(outcome.w2sq_C) if outcome.w2sq_C else None,
        "w2_per_class": outcome.w2sq_C,
        "quality": outcome.quality,
        "labels": _labels(ctx),
        "students": list(students),
        "committee": list(committee),
        "images": str(ctx.run.images) if outcome.images else None,
        "image_count": outcome.images,
        "classes": len(dataset.class_names),
        "ipc": ctx.config.ipc,
        "seed": ctx.config.seed,
        "precision": "bf16" if ctx.bf16 else "fp32",
        "teacher_sha256": outcome.teacher_sha256,
        "pseudo_labels": asdict(dataset.pseudo) if dataset.pseudo else None,
        "versions": versions(),
    }
    write_whole(ctx.run.report_file, json.dumps(facts, indent=1).encode())


def _labels(ctx: Context) -> dict[str, Any] | None:
    """Size of the stored soft labels, to stand beside the accuracy they gave; None where none are stored."""
    files = list(ctx.run.labels.glob("epochs-*.safetensors"))
    if not files:
        return None
    relabel = ctx.config.relabel
    return {"bytes": sum(file.stat().st_size for file in files), "top_k": relabel.top_k, "bits": relabel.bits}


def write_dataset_card(ctx: Context, dataset: Dataset, outcome: Outcome) -> None:
    """All that someone who gets the images alone must know."""
    facts = {
        "name": ctx.config.name or ctx.run.id,
        "source": dataset.name,
        "class_ids": list(dataset.class_ids),
        "class_names": list(dataset.class_names),
        "resolution": dataset.resolution,
        "ipc": ctx.config.ipc,
        "seed": ctx.config.seed,
        "precision": "bf16" if ctx.bf16 else "fp32",
        "teacher_sha256": outcome.teacher_sha256,
        "accuracies": _accuracies(outcome),
        "quality": outcome.quality,
        "versions": versions(),
        "config": ctx.config.model_dump(mode="json", exclude={"run"}),
    }
    # A file name of another encoding comes as a lone surrogate; escaped with a backslash it is valid JSON.
    data = json.dumps(facts, indent=1, ensure_ascii=False).encode(errors="backslashreplace")
    write_whole(ctx.run.images / "dataset.json", data)
