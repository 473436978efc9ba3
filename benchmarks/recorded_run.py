"""Event files of known content: a recovery as a GPU writes it, whole in a moment or replayed at true speed.

``python benchmarks/recorded_run.py DIR --iterations 1000000`` writes a finished run into DIR;
``--replay [FILE]`` appends to a run there at true speed, from FILE (an ``events.jsonl``) or synthetic; ``--flood N``
appends N bytes a second.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine import events, presets, rundir
from engine.rundir import RunDir

STAGES = ["squeeze", "statistics", "barycenter", "recover", "relabel", "train"]
#: The BatchNorm layers of a ResNet-18.
LAYERS = ["bn1", *(f"layer{i}.{j}.bn{k}" for i in range(1, 5) for j in range(2) for k in (1, 2)),
          *(f"layer{i}.0.downsample.1" for i in range(2, 5))]  # fmt: skip
FLUSH_SECONDS = 0.25
FLOOD_SECONDS = 0.05
BEAT_SECONDS = 2.0
IMAGE_SECONDS = 10.0
BEGIN = 1_790_000_000.0
_encode = msgspec.json.Encoder().encode


def synthetic(
    iterations: int, per_second: float = 160.0, chunk_iterations: int = 2000, begin: float = BEGIN
) -> Iterator[events.Event]:
    """A run's events with their times: losses every 250 ms as telemetry writes them, a beat every 2 s, one image 10 s.

    Losses fall, restart at every chunk and carry noise, so a chart of them changes as a true one does.
    """
    chance = random.Random(0)
    chunks = -(-iterations // chunk_iterations)
    t = begin
    yield events.Hello(
        t=t, stages=STAGES, classes=1000, class_names=[f"class {i}" for i in range(1000)], ipc=10, chunks=chunks,
        iterations=chunk_iterations, layers=LAYERS, device="cuda:0", pid=1,
    )  # fmt: skip
    for stage in STAGES[:3]:
        yield events.Stage(t=t, stage=stage, what="begin")
        for epoch in range(1, 6 if stage == "squeeze" else 1):
            yield events.Metrics(t=t, stage=stage, epoch=epoch, epochs=5, loss=4 / epoch, top1=12.0 * epoch, top5=90.0)
        yield events.Stage(t=t, stage=stage, what="end", seconds=30.0)
    yield events.Stage(t=t, stage="recover", what="begin")
    done, beat, image = 0, t, t
    step = max(1, round(per_second * FLUSH_SECONDS))
    while done < iterations:
        chunk, first = divmod(done, chunk_iterations)
        count = min(step, chunk_iterations - first, iterations - done)
        t += count / per_second
        yield _losses(chance, t, chunk, first, count, chunk_iterations)
        fade = math.exp(-3 * first / chunk_iterations)
        values = events.numbers([(1 + i) * (0.2 + fade) * chance.uniform(0.95, 1.05) for i in range(len(LAYERS))])
        yield events.Layers(t=t, chunk=chunk, iteration=first + count - 1, values=values)
        done += count
        yield events.Progress(t=t, stage="recover", done=done, total=iterations, unit="iterations")
        if t - beat >= BEAT_SECONDS:
            beat = t
            yield events.Beat(t=t)
            yield _memory(chance, t)
        if t - image >= IMAGE_SECONDS:
            image = t
            yield events.Image(t=t, chunk=chunk, iteration=first, path="previews/live.png", classes=[chunk % 1000])
            yield events.Log(t=t, message=f"checkpoint of chunk {chunk} at iteration {first}")
    yield events.Stage(t=t, stage="recover", what="end", seconds=t - begin)


def _losses(chance: random.Random, t: float, chunk: int, first: int, count: int, length: int) -> events.Iters:
    fade = [math.exp(-3 * (first + i) / length) for i in range(count)]
    noise = [chance.uniform(0.97, 1.03) for _ in fade]
    ce = [0.5 + 6 * f * n for f, n in zip(fade, noise, strict=True)]
    feature = [8 + 30 * f * n for f, n in zip(fade, noise, strict=True)]
    bn = [20 + 60 * f * n for f, n in zip(fade, noise, strict=True)]
    total = [a + b + 10 * c for a, b, c in zip(ce, feature, bn, strict=True)]
    return events.Iters(
        t=t, chunk=chunk, first=first, total=events.numbers(total), ce=events.numbers(ce),
        feature=events.numbers(feature), bn=events.numbers(bn),
    )  # fmt: skip


def _memory(chance: random.Random, t: float) -> events.Memory:
    gib = 1 << 30
    return events.Memory(
        t=t, rss=2 * gib, cpu_percent=round(chance.uniform(95, 105), 1), host_total=128 * gib,
        host_available=100 * gib, allocated=int(6 * gib + chance.uniform(0, gib)), reserved=8 * gib, peak=7 * gib,
        inactive_split=gib // 4, retries=0, ooms=0, device_total=80 * gib, device_free=70 * gib,
        utilisation=round(chance.uniform(90, 99)), power=round(chance.uniform(380, 420), 1), temperature=55.0,
    )  # fmt: skip


def ending(t: float, epochs: int = 200) -> Iterator[events.Event]:
    """The stages after recovery, and the end."""
    yield events.Stage(t=t, stage="relabel", what="begin")
    yield events.Stage(t=t, stage="relabel", what="end", seconds=10.0)
    yield events.Stage(t=t, stage="train", what="begin")
    for epoch in range(10, epochs + 1, 10):
        top1 = 60 * epoch / epochs
        yield events.Metrics(t=t, stage="train", epoch=epoch, epochs=epochs, loss=2.0, top1=top1, top5=90.0)
    yield events.Stage(t=t, stage="train", what="end", seconds=60.0)
    yield events.End(t=t, status="finished", seconds=t - BEGIN)


def new_run(root: Path | None = None, name: str = "recorded") -> RunDir:
    """A run directory without an engine."""
    return rundir.create(presets.get("digits").model_copy(update={"name": name}), root)


def finished_run(iterations: int, per_second: float = 160.0, root: Path | None = None) -> RunDir:
    """A finished run of so many iterations."""
    run = new_run(root, f"recorded-{iterations}")
    last = BEGIN
    with run.events_file.open("wb") as file:
        for event in synthetic(iterations, per_second):
            last = event.t
            file.write(_encode(event) + b"\n")
        for event in ending(last):
            file.write(_encode(event) + b"\n")
    return run


def replay(run: RunDir, found: Iterator[events.Event], seconds: float) -> None:
    """Append events at the pace of their own times, shifted to now, holding the engine's lock as an engine would."""
    writer = events.Writer(run.events_file)
    shift: float | None = None
    begin = time.time()
    with rundir.hold_lock(run):
        for event in found:
            shift = begin - event.t if shift is None else shift
            event.t += shift
            if event.t > begin + seconds:
                break
            time.sleep(max(0.0, event.t - time.time()))
            writer.write(event)
    writer.close()


def flood(run: RunDir, per_second: int, seconds: float) -> None:
    """Append losses and layers of ever the same iterations as fast as is asked, holding the engine's lock."""
    found = list(synthetic(4000))
    losses = [one for one in found if isinstance(one, events.Iters | events.Layers)]
    for one in losses:
        one.t = 0.0  # of no time, so that no clock goes back
    block = b"".join(_encode(one) + b"\n" for one in losses)
    writer = events.Writer(run.events_file)
    begin, sent = time.monotonic(), 0
    with rundir.hold_lock(run), run.events_file.open("ab", buffering=0) as file:
        for one in found[: found.index(losses[0])]:
            one.t = 0.0
            writer.write(one)
        while (now := time.monotonic() - begin) < seconds:
            while sent < now * per_second:
                sent += file.write(block)
            writer.write(events.Beat())
            time.sleep(FLOOD_SECONDS)
    writer.close()


def recovery_of(path: Path) -> Iterator[events.Event]:
    """A recorded file from its hello on, with the time before its recovery left out."""
    hello, recovering, last = None, False, 0.0
    for event in events.read(path):
        if isinstance(event, events.Hello):
            hello = event
        elif isinstance(event, events.Stage) and event.stage == "recover" and hello is not None and not recovering:
            recovering, hello.t, last = True, event.t, event.t
            yield hello
        if recovering and event is not hello:
            event.t = last = max(last, event.t)
            yield event


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a run directory to append to, or where to make a run")
    parser.add_argument("--iterations", type=int, default=1_000_000)
    parser.add_argument("--per-second", type=float, default=160.0, help="iterations a second")
    parser.add_argument("--replay", nargs="?", const="", help="append at true speed, from a recorded file")
    parser.add_argument("--flood", type=int, help="append so many bytes a second")
    parser.add_argument("--seconds", type=float, default=1e9, help="end of a replay or a flood")
    asked = parser.parse_args()
    if asked.flood is not None:
        flood(RunDir(asked.folder), asked.flood, asked.seconds)
        return
    if asked.replay is None:
        print(finished_run(asked.iterations, asked.per_second, asked.folder).path)
        return
    recorded = Path(asked.replay) if asked.replay else None
    found = recovery_of(recorded) if recorded else synthetic(asked.iterations, asked.per_second)
    replay(RunDir(asked.folder), found, asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
