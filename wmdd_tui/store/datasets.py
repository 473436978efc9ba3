"""The data sets this machine is known to hold: what lies under ``$WMDD_DATA``, and what earlier runs were given."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from engine.catalog import DatasetFacts, find_datasets
from engine.config import RunConfig
from wmdd_tui.store.counts import known_facts


def data_root() -> Path | None:
    """The folder that ``$WMDD_DATA`` names, if it names any."""
    named = os.environ.get("WMDD_DATA", "")
    return Path(named).expanduser() if named else None


def known_datasets(configs: Iterable[RunConfig]) -> list[DatasetFacts]:
    """Facts of every set found under the root, then of those the configurations name besides. Counts files: slow."""
    root = data_root()
    found = find_datasets([root] if root is not None else [])
    named = dict.fromkeys((config.data.dataset, config.data.path) for config in configs if config.data.path)
    if root is not None:
        named |= {(kind, str(root / kind)): None for kind in ("cifar10", "cifar100") if (root / kind).is_dir()}
    there = {Path(facts.path).resolve() for facts in found}
    found += [known_facts(kind, path) for kind, path in named if Path(path).resolve() not in there]
    return found
