"""What the stages of a run found out, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.train import StudentResult


@dataclass
class Outcome:
    """Filled in stage after stage: seconds of each, accuracies in percent, W2² of each class, quality of images."""

    seconds: dict[str, float] = field(default_factory=dict)
    teacher_top1: float | None = None
    teacher_sha256: str = ""
    w2sq_C: list[float] = field(default_factory=list)
    student: StudentResult | None = None
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    images: int = 0
