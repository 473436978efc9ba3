"""The artifact cache as people ask of it: what lies there, how large, how old, which runs use it; and pruning it.

Nothing is lost with an entry: runs keep copies of what they use, and a later run makes it again.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.artifacts import Cache
from engine.errors import InputError, RunFailure
from engine.rundir import RunDir, list_runs
from wmdd_tui.store.history import Report, silent

ENTRY_NAME = re.compile(r"([a-z]+)-([0-9a-f]{32})\.\w+")
UNFINISHED = "unfinished"
#: A temporary file younger than this may still be written to.
WRITING_SECONDS = 3600.0
DIGEST_BYTES = 32
MOST_HEADER_BYTES = 16 << 20
DAY_SECONDS = 86400.0
UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
BINARY_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True)
class Entry:
    """One file of the cache. Ages in seconds; ``idle_s`` since it was made or, later, last taken by a known run.

    ``runs`` are the runs whose own copy carries the same key. ``linked`` entries share their bytes with a run, so
    removing them frees the space only once that run is deleted.
    """

    path: Path
    kind: str
    key: str
    bytes: int
    age_s: float
    idle_s: float
    runs: tuple[str, ...]
    linked: bool


def folder() -> Path:
    """Where the engine keeps its cache."""
    return Cache().path("", "").parent


def entries(now: float | None = None, report: Report = silent) -> list[Entry]:
    """All files of the cache, the largest first; none where there is no cache. ``report`` is told of runs read."""
    now = time.time() if now is None else now
    try:
        paths = [path for path in folder().iterdir() if path.is_file()]
    except OSError:
        return []
    uses = _uses(list_runs(), report)
    found = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            continue  # pruned or renamed since it was listed
        match = ENTRY_NAME.fullmatch(path.name)
        if match is None and not path.name.startswith("."):
            continue  # nothing the engine has put there
        kind, key = (match[1], match[2]) if match else (UNFINISHED, "")
        taken = uses.get(key, {})
        age = max(0.0, now - facts.st_mtime)
        idle = min([age, *(max(0.0, now - moment) for moment in taken.values())])
        found.append(Entry(path, kind, key, facts.st_size, age, idle, tuple(sorted(taken)), facts.st_nlink > 1))
    return sorted(found, key=lambda entry: (-entry.bytes, entry.path.name))


def _uses(runs: Sequence[RunDir], report: Report) -> dict[str, dict[str, float]]:
    """For each key the runs that hold a copy, and when each of them got it."""
    uses: dict[str, dict[str, float]] = {}
    for done, run in enumerate(runs, start=1):
        for path in run.checkpoints.glob("*.ckpt"):
            # Stages name their output after themselves; chunks and training states carry no key of the cache.
            if path.name.count(".") == 1 and "-" not in path.name and (key := key_in(path)):
                with suppress(OSError):  # a run may be deleted while this looks
                    uses.setdefault(key, {})[run.id] = path.stat().st_mtime
        report(done, len(runs))
    return uses


def key_in(path: Path) -> str:
    """The key a stage's checkpoint carries in its header, read without its tensors; "" where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(DIGEST_BYTES)
            length = int.from_bytes(file.read(8), "little")
            if length > MOST_HEADER_BYTES:
                return ""
            header = json.loads(file.read(length))
        return str(json.loads(header["__metadata__"]["state"]).get("key", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def parse_size(text: str) -> int:
    """Bytes of "500MB", "2 GiB" or "1500000". Raises InputError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text.lower())
    if match is None or (match[3] and not match[2]):
        raise InputError(f"--max-size {text!r} is no size", "write a number with a unit: 500MB, 2GB, 2GiB")
    return int(float(match[1]) * (BINARY_UNITS if match[3] else UNITS)[match[2]])


def choose(
    found: Sequence[Entry],
    everything: bool = False,
    unused: bool = False,
    older_than_days: float | None = None,
    max_bytes: int | None = None,
) -> list[Entry]:
    """The entries that rules pick for removal, those idle for longest first.

    ``unused`` and ``older_than_days`` narrow each other; ``max_bytes`` then stops as soon as the rest of the cache
    is no larger. Files that may still be written to are never picked. Raises InputError for no rule, or for
    ``everything`` beside another.
    """
    narrowed = unused or older_than_days is not None or max_bytes is not None
    if everything and narrowed:
        raise InputError("--all leaves nothing for another rule to choose", "give --all alone, or the other rules")
    if not everything and not narrowed:
        raise InputError(
            "nothing says what to remove from the cache",
            "give --older-than DAYS, --max-size SIZE, --unused or --all; --dry-run only shows what would go",
        )
    picked = []
    kept = sum(entry.bytes for entry in found)
    for entry in sorted(found, key=lambda entry: (-entry.idle_s, entry.path.name)):
        if entry.kind == UNFINISHED and entry.age_s < WRITING_SECONDS:
            continue
        if (unused and entry.runs) or (older_than_days is not None and entry.idle_s <= older_than_days * DAY_SECONDS):
            continue
        if max_bytes is not None and kept <= max_bytes:
            break
        picked.append(entry)
        kept -= entry.bytes
    return picked


def remove(chosen: Sequence[Entry]) -> None:
    """Delete entries; one that is gone already is no fault. Raises RunFailure."""
    for entry in chosen:
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise RunFailure(
                f"cannot remove {entry.path}: {error.strerror}", "check who owns the folder, then prune again"
            ) from None
