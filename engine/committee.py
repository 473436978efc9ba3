"""Several teachers as a committee: every loss of recovery and every soft label is the mean over its members.

The first teacher is the run's own. Each further member goes through the same stages, with the run's configuration
but for its network, in a context of its own: what it leaves lies under ``committee/1``, ``committee/2``, … of the run
directory, laid out as a run's, and in the same cache as if it had been the teacher of a run of its own.

The idea of matching several networks at once is G-VBSM's and CV-DD's; here all have one vote each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from engine import events, groundwork, models, rundir
from engine.artifacts import Cache, key_of
from engine.context import Context
from engine.data import Dataset
from engine.judges import Judge, Points
from engine.models.checkpoint import member_config
from engine.models.instrument import bn_layers, classifier_layer
from engine.outcome import Outcome
from engine.space import needed_bytes
from engine.statistics import Statistics


@dataclass
class Member:
    """A further teacher, and what was found out with it so far; ``outcome`` holds its accuracy, hash and W2²."""

    name: str
    ctx: Context
    network: nn.Module
    outcome: Outcome
    found: Statistics | None = None
    points: Points | None = None


class MeanLogits(nn.Module):
    """A committee as one network: the mean of its members' logits."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Logits (N, C)."""
        return torch.stack([member(images_NCHW) for member in self.members]).mean(0)


def gather(ctx: Context, classes: int, outcome: Outcome) -> list[Member]:
    """The further members, built and not yet taught; none without ``teacher.committee``. Raises InputError."""
    members = []
    for index, entry in enumerate(ctx.config.teacher.committee, start=1):
        config = member_config(ctx.config, entry)
        network = models.build_teacher(config, classes)
        own = replace(
            ctx,
            config=config,
            run=rundir.RunDir(ctx.run.path / "committee" / str(index)),
            emit=partial(_told_apart, ctx.emit, entry),
            fitting={},
            needed=0,
        )
        members.append(Member(entry, own, network, Outcome(seconds=outcome.seconds)))
    return members


def _told_apart(emit: Callable[[events.Event], None], name: str, event: events.Event) -> None:
    """A member's accuracies are not those of the run's teacher."""
    if isinstance(event, events.Metrics):
        event.stage, event.student = "committee", name
    emit(event)


def space_bytes(members: Sequence[Member], classes: int, train_images: int) -> int:
    """What the members write besides the run's own outputs."""
    total = 0
    for member in members:
        until = member.ctx.config.run.model_copy(update={"until": "barycenter"})
        config = member.ctx.config.model_copy(update={"run": until})
        features = classifier_layer(member.network).in_features
        total += needed_bytes(config, classes, train_images, features, member.network)
    return total


def layer_names(network: nn.Module, members: Sequence[Member]) -> list[str]:
    """Names of all BatchNorm layers in the order of the losses; a member's are preceded by its number."""
    names = [name for name, _ in bn_layers(network)]
    for index, member in enumerate(members, start=2):
        names += [f"{index}:{name}" for name, _ in bn_layers(member.network)]
    return names


def teach(members: Sequence[Member], cache: Cache, dataset: Dataset) -> None:
    """Train or load every member's network. Raises EngineError subclasses."""
    for member in members:
        member.ctx.run.checkpoints.mkdir(parents=True, exist_ok=True)
        member.network = groundwork.teacher(member.ctx, cache, dataset, member.network, member.outcome)


def survey(members: Sequence[Member], cache: Cache, dataset: Dataset) -> list[str]:
    """Statistics of the real images as every member sees them; returns the hashes of their features."""
    hashes = []
    for member in members:
        member.found, sha256 = groundwork.real_statistics(member.ctx, cache, dataset, member.network, member.outcome)
        hashes.append(sha256)
    return hashes


def solve(members: Sequence[Member], cache: Cache, dataset: Dataset, hashes: Sequence[str]) -> None:
    """Barycenters of every member's features."""
    for member, sha256 in zip(members, hashes, strict=True):
        if member.found is not None:
            member.points = groundwork.barycenters(member.ctx, cache, dataset, member.found, sha256, member.outcome)


def judges(members: Sequence[Member]) -> list[Judge]:
    """What recovery needs of each member."""
    return [Judge(member.network, member.found, member.points) for member in members if member.found is not None]


def voters(network: nn.Module, members: Sequence[Member]) -> nn.Module:
    """The network that labels: the first teacher alone, or the mean of all logits."""
    return MeanLogits([network, *(member.network for member in members)]).eval() if members else network


def identity(outcome: Outcome, members: Sequence[Member]) -> str:
    """A hash of all teachers; the first one's own where it is alone."""
    if not members:
        return outcome.teacher_sha256
    return key_of(teachers=[outcome.teacher_sha256, *(member.outcome.teacher_sha256 for member in members)])


def facts(members: Sequence[Member]) -> list[dict[str, Any]]:
    """For the report: name, accuracy in percent, hash and mean W2² of every member."""
    return [
        {
            "teacher": member.name,
            "top1": member.outcome.teacher_top1,
            "sha256": member.outcome.teacher_sha256,
            "w2": sum(member.outcome.w2sq_C) / len(member.outcome.w2sq_C) if member.outcome.w2sq_C else None,
        }
        for member in members
    ]
