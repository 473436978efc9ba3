"""Time of every stage on several ranks: measured on this machine's cores, compared with the model of docs/scaling.md.

``python benchmarks/scaling.py --ranks 1,2,4`` runs one configuration from one fixed teacher with each number of ranks,
takes unit costs from the run of one rank, and prints what the model predicts beside what was measured.
``--predict`` prints the model's table for large data sets, from unit costs given there by name. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from engine import events, presets, rundir
from engine.config import RunConfig, override
from engine.distributed.planning import balanced, chunk_cost, imbalance, ranges

STAGES = ("statistics", "barycenter", "recover", "relabel")


@dataclass(frozen=True)
class Task:
    """A data set and what is asked of it: N images, C classes, K images a class, T iterations, E epochs."""

    name: str
    images: int
    classes: int
    ipc: int
    iterations: int
    epochs: int
    batch: int = 100
    features: int = 512
    channels: int = 4800
    pixels: int = 3 * 224 * 224
    forward_batch: int = 256

    @property
    def synthetic(self) -> int:
        return self.classes * self.ipc


@dataclass(frozen=True)
class Units:
    """Seconds of one rank for one unit of each stage, and what does not get faster with more ranks.

    ``forward``: an image through the teacher, with the sums of statistics; ``decode``: an image on one core;
    ``point``: one class's feature-point pair in the barycenter; ``step``: an image-iteration of recovery;
    ``label``: an image of an epoch of relabel; ``train``: an image of an epoch of the student; ``create``: making a
    file, by all ranks of a run together; ``write``: a byte onto the shared file system.
    """

    forward: float
    decode: float
    point: float
    step: float
    label: float
    train: float
    create: float
    write: float
    cores: int


def seconds(task: Task, units: Units, ranks: int, slots: int = 0) -> dict[str, float]:
    """Predicted seconds of each stage. ``slots`` ranks at most compute at the same time (cores of a small machine)."""
    at_once = min(ranks, slots or ranks)
    shards = [float(len(shard)) for shard in ranges(-(-task.images // task.forward_batch), 8)]
    parts = [float(len(part)) for part in ranges(task.classes)]
    per_chunk = max(1, task.batch // task.ipc)
    sizes = [min(per_chunk, task.classes - first) * task.ipc for first in range(0, task.classes, per_chunk)]
    chunks = [chunk_cost(size, task.iterations) for size in sizes]
    label_bytes = 2.0 * task.synthetic * task.classes
    block = max(1, min(20, int((64 << 20) / label_bytes)))
    blocks = [float(len(range(first, min(first + block, task.epochs)))) for first in range(0, task.epochs, block)]

    def shared(costs: list[float]) -> float:
        """How much longer than one rank's even share the slowest takes."""
        return imbalance(costs, balanced(costs, ranks)) / at_once

    decode = task.images * units.decode / (units.cores * at_once)
    return {
        "statistics": max(task.images * units.forward * shared(shards), decode)
        + (4.0 * task.images * task.features) * 2 * units.write,
        "barycenter": task.images * task.ipc * units.point * shared(parts),
        "recover": max(task.synthetic * task.iterations * units.step * shared(chunks), task.synthetic * units.create),
        "relabel": max(
            task.epochs * task.synthetic * units.label * shared(blocks), task.epochs * label_bytes * units.write
        ),
        "train": task.epochs * task.synthetic * units.train,
    }


def stored(task: Task) -> dict[str, float]:
    """Bytes on disk: features, sums of statistics, barycenters, images (as if incompressible), soft labels."""
    return {
        "features": 4.0 * task.images * task.features,
        "statistics": 8.0 * task.classes * task.channels,
        "barycenters": 8.0 * task.synthetic * task.features,
        "images": 2.0 * task.synthetic * task.pixels,
        "soft labels": 2.0 * task.epochs * task.synthetic * task.classes,
    }


# --- measured ---------------------------------------------------------------------------------------------


def settings(teacher: Path | None, changes: list[str]) -> RunConfig:
    """The run that is measured: digits in which every stage has enough shards for four ranks."""
    given = ['run.until="squeeze"'] if teacher is None else [
        'teacher.source="run"', f"teacher.path={json.dumps(str(teacher))}", 'run.until="relabel"',
    ]  # fmt: skip
    base = [
        "run.threads=1", "run.use_cache=false", 'run.device="cpu"', "squeeze.epochs=5", "statistics.batch_size=16",
        "ipc=5", "recover.batch_size=5", "recover.iterations=200", "recover.preview_every=0", "relabel.batch_size=50",
        "train.epochs=320", "recover.checkpoint_every=200",
    ]  # fmt: skip
    return override(presets.get("digits"), [*base, *given, *changes])


def carried_out(config: RunConfig) -> rundir.RunDir:
    """Run to the end. Raises CalledProcessError."""
    run = rundir.create(config)
    subprocess.run([sys.executable, "-m", "engine", str(run.path)], check=True, stdout=subprocess.DEVNULL)
    return run


def spans(run: rundir.RunDir, ranks: int) -> dict[str, float]:
    """Seconds from the first rank's beginning of each stage to the last rank's last progress in it."""
    found: dict[str, float] = {}
    for stage in STAGES:
        begun, ended = math.inf, 0.0
        for rank in range(ranks):
            for event in events.read(run.rank_events_file(rank)):
                if isinstance(event, events.Stage) and event.stage == stage and event.what == "begin":
                    begun = min(begun, event.t)
                elif isinstance(event, events.Progress) and event.stage == stage:
                    ended = max(ended, event.t)
        found[stage] = ended - begun
    return found


def units_of(task: Task, measured: dict[str, float]) -> Units:
    """Unit costs by the run of one rank."""
    return Units(
        forward=measured["statistics"] / task.images,
        decode=0.0,
        point=measured["barycenter"] / (task.images * task.ipc),
        step=measured["recover"] / (task.synthetic * task.iterations),
        label=measured["relabel"] / (task.synthetic * task.epochs),
        train=0.0,
        create=0.0,
        write=0.0,
        cores=1,
    )


def measure(counts: list[int], repeats: int) -> dict[str, object]:
    """Runs with each number of ranks; what was measured and predicted, in seconds."""
    teacher = carried_out(settings(None, []))
    results: dict[str, object] = {}
    task = Task("digits", 1437, 10, 5, 200, 320, batch=5, features=64, pixels=3 * 16 * 16, forward_batch=16)
    units: Units | None = None
    slots = len(os.sched_getaffinity(0))
    for count in counts:
        devices = [] if count == 1 else [f"run.devices={json.dumps(['cpu'] * count)}"]
        found = [spans(carried_out(settings(teacher.path, devices)), count) for _ in range(repeats)]
        middle = {stage: sorted(one[stage] for one in found)[repeats // 2] for stage in STAGES}
        units = units or units_of(task, middle)
        predicted = seconds(task, units, count, slots=slots)
        results[str(count)] = {
            stage: {"measured": round(middle[stage], 3), "predicted": round(predicted[stage], 3)} for stage in STAGES
        }
        for stage in STAGES:
            spread = max(one[stage] for one in found) - min(one[stage] for one in found)
            print(
                f"{count} ranks, {stage:<10} {middle[stage]:7.2f} s (n = {repeats}, spread {spread:.2f}), "
                f"predicted {predicted[stage]:7.2f} s, {100 * (predicted[stage] / middle[stage] - 1):+.0f} %"
            )
    return results


# --- predicted --------------------------------------------------------------------------------------------

#: One GPU of the H100 kind with ResNet-18 at 224 px: the project's own targets, not measurements; 16 cores a GPU that
#: decode 150 images a second each; a parallel file system of 2 GB/s and 2,000 new files a second.
TARGETS = Units(
    forward=1 / 25_000, decode=1 / 150, point=15 / (1000 * 1300 * 50), step=1 / 15_000, label=1 / 20_000,
    train=1 / 7_000, create=1 / 2_000, write=1 / 2e9, cores=16,
)  # fmt: skip
TASKS = (
    Task("ImageNet-1K, IPC 10", 1_281_167, 1000, 10, 2000, 300),
    Task("ImageNet-1K, IPC 50", 1_281_167, 1000, 50, 2000, 300),
    Task("ImageNet-1K, IPC 100", 1_281_167, 1000, 100, 2000, 300),
    Task("ImageNet-21K-P, IPC 10", 11_060_223, 10_450, 10, 2000, 300),
)


def predict() -> dict[str, object]:
    """The table for large sets; also printed."""
    table: dict[str, object] = {}
    for task in TASKS:
        held = stored(task)
        print(f"{task.name}: " + ", ".join(f"{name} {size / 1e9:.3g} GB" for name, size in held.items()))
        for ranks in (1, 8, 64):
            found = seconds(task, TARGETS, ranks)
            shared = replace(TARGETS, write=0.0, create=0.0, decode=0.0)
            bare = seconds(task, shared, ranks)
            limits = [stage for stage in found if found[stage] > 1.05 * bare[stage]]
            print(
                f"  {ranks:>2} GPUs: "
                + ", ".join(f"{stage} {value / 3600:.3g} h" for stage, value in found.items())
                + (f"; limited by disk or decoding: {', '.join(limits)}" if limits else "")
            )
            table[f"{task.name}, {ranks}"] = {stage: round(value) for stage, value in found.items()}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--predict", action="store_true")
    options = parser.parse_args()
    if options.predict:
        print(json.dumps(predict()))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["WMDD_HOME"] = home
        print(json.dumps(measure([int(count) for count in options.ranks.split(",")], options.repeats)))


if __name__ == "__main__":
    main()
