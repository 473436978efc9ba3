"""What the stages of a run found out, for its report."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.students import Trained
from engine.train import StudentResult


@dataclass
class Outcome:
    """Filled in stage after stage: seconds of each, accuracies in percent, W2² of each class, quality of images.

    ``student`` is the first of ``students``; ``teachers_sha256`` stands for all teachers of a committee.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    teacher_top1: float | None = None
    teacher_sha256: str = ""
    teachers_sha256: str = ""
    w2sq_C: list[float] = field(default_factory=list)
    student: StudentResult | None = None
    students: list[Trained] = field(default_factory=list)
    quality: dict[str, dict[str, float]] = field(default_factory=dict)
    images: int = 0
