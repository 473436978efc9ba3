"""Which stages of a configuration would come from the artifact cache, as far as that can be told without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.artifacts import Cache
from engine.config import RunConfig
from engine.devices import computes_in_bf16
from wmdd_tui.store.cache import key_in
from wmdd_tui.store.measured import Measured

#: Options of the data that change nothing of what is computed.
HOW_ONLY = {"storage", "workers"}


def reusable(config: RunConfig, cuda: bool, found: Sequence[Measured]) -> frozenset[str]:
    """The stages whose output an earlier run with the same determining options left in the cache, still there.

    The engine's own keys also hold the files of the data set, which are not read here: if they have changed, the
    stage runs anyway.
    """
    if not config.run.use_cache:
        return frozenset()
    reused: set[str] = set()
    for run in found:
        if run.cuda != cuda or _teacher(run.config, cuda) != _teacher(config, cuda):
            continue
        if config.teacher.source == "train" and _kept(run, "teacher"):
            reused.add("squeeze")
        if _statistics(run.config, cuda) != _statistics(config, cuda) or not _kept(run, "statistics"):
            continue
        reused.add("statistics")
        same = run.config.barycenter == config.barycenter and run.config.ipc == config.ipc
        if same and config.barycenter.weights != "none" and _kept(run, "barycenter"):
            reused.add("barycenter")
    return frozenset(reused)


def _teacher(config: RunConfig, cuda: bool) -> dict[str, Any]:
    """All that determines the teacher and the images it sees."""
    facts: dict[str, Any] = {
        "data": config.data.model_dump(exclude=HOW_ONLY),
        "teacher": config.teacher.model_dump(),
        "seed": config.seed,
    }
    if config.teacher.source == "train":
        facts |= {
            "squeeze": config.squeeze.model_dump(exclude={"compile"}),
            "threads": config.run.threads,
            "bf16": computes_in_bf16(config.run.precision, "cuda" if cuda else "cpu"),
        }
    return facts


def _statistics(config: RunConfig, cuda: bool) -> dict[str, Any]:
    """All that determines the statistics, beside teacher and images."""
    bf16 = computes_in_bf16(config.precision_of("statistics"), "cuda" if cuda else "cpu")
    return config.statistics.model_dump(exclude={"precision"}) | {"bf16": bf16}


def _kept(run: Measured, kind: str) -> bool:
    """Whether the cache holds what this stage of the run has made."""
    key = key_in(run.directory.checkpoints / f"{kind}.ckpt")
    return bool(key) and Cache().find(kind, key) is not None
