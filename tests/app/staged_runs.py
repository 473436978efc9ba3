"""Runs in every state, made by code: the same events, times and pictures on every machine and every day."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from PIL import Image

from engine import events, presets, rundir
from engine.config import override
from engine.rundir import RunDir
from wmdd_tui.store import embedded

#: What the clock says: 2026-03-14 14:53:20 UTC.
NOW = 1_773_500_000.0
STAGES = ["squeeze", "statistics", "barycenter", "recover", "relabel", "train"]
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
#: The BatchNorm layers of a ResNet-18, without those of its shortcuts.
LAYERS = ["bn1", *(f"layer{i}.{j}.bn{k}" for i in range(1, 5) for j in range(2) for k in (1, 2))]
CHUNKS = 2
ITERATIONS = 150
STEP = 10
GIB = 1 << 30
GREYS = (0, 128, 255)
SIDE = 8
LIVE = "previews/chunk-000001-0000040.png"


@contextmanager
def staged(root: Path) -> Iterator[dict[str, RunDir]]:
    """Runs by name under ``root``; the lock of those that are alive is held as their engine would hold it."""
    found = {
        "live": make(root, "20260314-145140-5a1e", "live", live(NOW - 100)),
        "waiting": make(root, "20260314-144320-0b5c", "waiting", waiting(NOW - 600)),
        "strong-bn": make(root, "20260314-135320-77d0", "strong-bn", finished(NOW - 3600, 96.1), r_bn=100.0),
        "plain": make(root, "20260314-085320-c3aa", "plain", finished(NOW - 21600, 94.7)),
        "diverged": make(root, "20260313-145320-19f2", "diverged", failed(NOW - 86400), lr=25.0),
        "half-way": make(root, "20260312-145320-e604", "half-way", stopped(NOW - 172800)),
        "wide": make(root, "20260310-145320-4d4d", "[b]漢字[/] ünïcode and long", recovering(NOW - 345600, 40)),
    }
    add_pictures(found["live"], 0)
    add_pictures(found["strong-bn"], 4)
    add_pictures(found["plain"], 3)
    with ExitStack() as held:
        for name in ("live", "waiting"):
            held.enter_context(rundir.hold_lock(found[name]))
        found["wide"].lock_file.touch()  # nobody holds it: crashed
        yield found


def make(
    root: Path, id: str, name: str, written: Iterator[events.Event], r_bn: float = 10.0, lr: float = 0.1
) -> RunDir:
    """One run whose engine wrote these events."""
    changed = {"name": name, "teacher.arch": "resnet18", "data.resolution": 32, "recover.batch_size": 50}
    changed |= {"recover.iterations": ITERATIONS, "recover.r_bn": r_bn, "recover.lr": lr}
    settings = override(presets.get("digits"), [f"{key}={json.dumps(value)}" for key, value in changed.items()])
    run = RunDir(rundir.create(settings, root).path.rename(root / id))
    found = list(written)
    os.utime(run.config_file, (found[0].t, found[0].t))
    writer = events.Writer(run.events_file)
    for event in found:
        writer.write(event)
    writer.close()
    return run


# --- what engines write ----------------------------------------------------------------------------------------


def hello(t: float, device: str) -> events.Hello:
    """The first event."""
    return events.Hello(
        t=t, stages=STAGES, classes=10, class_names=NAMES, ipc=10, chunks=CHUNKS, iterations=ITERATIONS,
        layers=LAYERS, device=device, pid=1,
    )  # fmt: skip


def prepared(t: float, device: str) -> Iterator[events.Event]:
    """Teacher, statistics and barycenters within 40 seconds."""
    yield hello(t, device)
    yield events.Stage(t=t, stage="squeeze", what="begin")
    for epoch in range(1, 13):
        top1, loss = 100 - 60 * math.exp(-epoch / 3), 2.2 * math.exp(-epoch / 4)
        yield events.Metrics(
            t=t + 2.5 * epoch, stage="squeeze", epoch=epoch, epochs=12, loss=round(loss, 4), top1=round(top1, 2),
            top5=99.0,
        )  # fmt: skip
    yield events.Stage(t=t + 31, stage="squeeze", what="end", seconds=31.0)
    for begin, stage, seconds in ((31, "statistics", 4.0), (35, "barycenter", 5.0)):
        yield events.Stage(t=t + begin, stage=stage, what="begin")
        yield events.Log(t=t + begin, message=f"{stage}: ten classes, one pass")
        yield events.Stage(t=t + begin + seconds, stage=stage, what="end", seconds=seconds)


def recovering(t: float, done: int, device: str = "cpu, 2 threads") -> Iterator[events.Event]:
    """The same, and so many iterations of recovery, five a second."""
    yield from prepared(t, device)
    t += 40
    yield events.Stage(t=t, stage="recover", what="begin")
    for place in range(0, done, STEP):
        chunk, first = divmod(place, ITERATIONS)
        t += STEP / 5
        fade = [math.exp(-3 * (first + i) / ITERATIONS) * (1 + 0.1 * math.sin(place + i)) for i in range(STEP)]
        ce, feature, bn = ([base + rise * f for f in fade] for base, rise in ((0.5, 6), (8, 30), (20, 60)))
        total = [a + b + 10 * c for a, b, c in zip(ce, feature, bn, strict=True)]
        yield events.Iters(
            t=t, chunk=chunk, first=first, total=events.numbers(total), ce=events.numbers(ce),
            feature=events.numbers(feature), bn=events.numbers(bn),
        )  # fmt: skip
        values = [(1 + i % 5) * (0.2 + fade[0] * (1 if i % 3 else -0.15)) for i in range(len(LAYERS))]
        yield events.Layers(t=t, chunk=chunk, iteration=first, values=events.numbers(values))
        yield events.Progress(t=t, stage="recover", done=place + STEP, total=CHUNKS * ITERATIONS, unit="iterations")
        yield host_memory(t)


def live(t: float) -> Iterator[events.Event]:
    """A run on a GPU, in its second chunk; the last event is 22 seconds old at most."""
    yield from recovering(t, 190, "cuda:0")
    t += 80
    yield events.Image(t=t, chunk=1, iteration=40, path=LIVE, classes=[5, 6, 7, 8, 9])
    yield events.Log(t=t, message="chunk 2: classes five, six, seven, eight, nine")
    yield events.Log(t=t, message="a line that is longer than a narrow terminal is wide, " * 3, level="warning")
    yield events.Memory(
        t=t, rss=2 * GIB, cpu_percent=104.0, host_total=64 * GIB, host_available=40 * GIB, allocated=6 * GIB,
        reserved=9 * GIB, peak=8 * GIB, inactive_split=2 * GIB, retries=0, ooms=0, device_total=24 * GIB,
        device_free=10 * GIB, utilisation=97.0, power=281.0, temperature=63.0,
    )  # fmt: skip
    yield events.Beat(t=t)


def waiting(t: float) -> Iterator[events.Event]:
    """A run that has not had its turn."""
    yield hello(t, "")
    yield events.Beat(t=NOW - 5, queued=True)


def finished(t: float, top1: float) -> Iterator[events.Event]:
    """A whole run; the student reaches an accuracy."""
    yield from recovering(t, CHUNKS * ITERATIONS)
    yield events.Stage(t=t + 100, stage="recover", what="end", seconds=60.0)
    yield events.Stage(t=t + 100, stage="relabel", what="begin")
    yield events.Stage(t=t + 104, stage="relabel", what="end", seconds=4.0)
    yield events.Stage(t=t + 104, stage="train", what="begin")
    for epoch in range(10, 121, 10):
        yield events.Metrics(
            t=t + 104 + epoch / 6, stage="train", epoch=epoch, epochs=120, loss=round(2 * math.exp(-epoch / 40), 4),
            top1=round(top1 - 60 * math.exp(-epoch / 25), 2), top5=round(100 - 20 * math.exp(-epoch / 25), 2),
        )  # fmt: skip
    yield events.Stage(t=t + 124, stage="train", what="end", seconds=20.0)
    yield events.End(t=t + 124, status="finished", seconds=124.0)


def failed(t: float) -> Iterator[events.Event]:
    """A run whose loss became infinite."""
    yield from recovering(t, 60)
    yield events.Iters(t=t + 53, chunk=0, first=60, total=["inf", "nan"], ce=[1.0, "nan"])
    yield events.End(
        t=t + 54, status="failed", error="NonFiniteLoss", message="the loss is inf at iteration 60 of chunk 0",
        remedy="lower recover.lr, which is 25, and resume", seconds=54.0,
    )  # fmt: skip


def stopped(t: float) -> Iterator[events.Event]:
    """A run that was asked to stop."""
    yield from recovering(t, 150)
    yield events.End(t=t + 71, status="stopped", seconds=71.0)


def host_memory(t: float) -> events.Memory:
    """Figures without a GPU."""
    return events.Memory(t=t, rss=GIB, cpu_percent=190.0, host_total=16 * GIB, host_available=12 * GIB)


# --- pictures --------------------------------------------------------------------------------------------------


def add_distribution(run: RunDir, classes: int = 10, per_class: int = 4) -> None:
    """Files in place of a run's features, and the picture of them as it was measured at an earlier time."""
    for name in (file for _, _, files in embedded.SOURCES for file in files):
        (run.path / name).write_bytes(b"features")
    placed = []
    for label in range(classes):
        x, y = 10 * math.cos(2 * math.pi * label / classes), 6 * math.sin(2 * math.pi * label / classes)
        spiral = [(x + i / 20 * math.cos(2.4 * i), y + i / 30 * math.sin(2.4 * i)) for i in range(60)]
        placed.append(
            embedded.Placed(
                label, NAMES[label], spiral, [(px + 0.3, py) for px, py in spiral[::15]][:per_class],
                spiral[10::12][:per_class], 5.25 + label, 4.5 + label, 3.125, 92.5 - label, 95.0,
            )
        )  # fmt: skip
    embedded.keep(embedded.Wanted(run), msgspec.json.encode(embedded.Embedding("pca", placed)))


def add_pictures(run: RunDir, per_class: int) -> None:
    """The live pictures of the second chunk, the finished images of ten classes, and the sheet of all, if any."""
    stripes(5 * SIDE, SIDE, 5).save(run.path / LIVE)
    for label in range(10 if per_class else 0):
        folder = run.images / f"class-{label}"
        folder.mkdir()
        for number in range(per_class):
            stripes(SIDE, SIDE, label + number).save(folder / f"class00{label}_id00{number}.png")
    if per_class:
        stripes(10 * SIDE, per_class * SIDE, per_class).save(run.report / "contact_sheet.png")


def stripes(width: int, height: int, turn: int) -> Image.Image:
    """Slanted stripes in three greys: small enough to be drawn without mixing, so that few colours appear."""
    picture = Image.new("L", (width, height))
    picture.putdata([GREYS[(x // 2 + turn * y) % len(GREYS)] for y in range(height) for x in range(width)])
    return picture
