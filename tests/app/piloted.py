"""What tests that drive the app share: a recorded run, waiting, and reading a widget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot

from engine import events, presets, rundir
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp

HOSTILE = "[red]x[/] [link=a] \\[ ünïcode 漢字 ]["


async def until(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Let the app work until something holds; the suite's time limit is the end of patience.

    The pilot's own pause asks every widget, and waits in vain for one that is removed meanwhile.
    """
    while not condition():
        assert pilot.app.is_running, "the app has ended"
        await asyncio.sleep(0.01)


def record(name: str = "recorded", end: str = "finished") -> RunDir:
    """A finished run as its engine would have left it."""
    settings = presets.get("digits").model_copy(update={"name": name})
    run = rundir.create(settings)
    writer = events.Writer(run.events_file)
    writer.write(
        events.Hello(
            stages=["squeeze", "recover", "train"], classes=2, class_names=["zero", HOSTILE], ipc=1, chunks=1,
            iterations=20, layers=["blocks.0.1", HOSTILE], device="cpu",
        )
    )  # fmt: skip
    writer.write(events.Stage(stage="squeeze", what="begin"))
    writer.write(events.Metrics(stage="squeeze", epoch=1, epochs=1, loss=1.5, top1=81.25))
    writer.write(events.Stage(stage="squeeze", what="end", seconds=2.0))
    writer.write(events.Stage(stage="recover", what="begin"))
    for step in range(20):
        loss: list[events.Number] = [float(20 - step)]
        writer.write(events.Iters(chunk=0, first=step, total=loss, ce=loss, feature=loss, bn=["nan"]))
        writer.write(events.Layers(chunk=0, iteration=step, values=[1.0, 3.0]))
        writer.write(events.Progress(stage="recover", done=step + 1, total=20, unit="iterations"))
    writer.write(events.Memory(rss=1 << 30, cpu_percent=50.0, host_total=8 << 30, host_available=4 << 30))
    writer.write(events.Log(message=HOSTILE + "\nsecond line", level="warning"))
    writer.write(events.Stage(stage="recover", what="end", seconds=1.0))
    writer.write(events.Metrics(stage="train", epoch=10, epochs=10, loss=0.5, top1=62.5, top5=99.0))
    writer.write(events.End(status=end, error="NonFiniteLoss", message=HOSTILE, remedy="lower recover.lr"))
    writer.close()
    with run.events_file.open("ab") as file:
        file.write(b'garbage\n{"kind":"unknown"}\n{"kind":"iters","chu')
    return run


def text_of(app: WmddApp, selector: str) -> str:
    return str(app.screen.query_one(selector).content)  # type: ignore[attr-defined]
