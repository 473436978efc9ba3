"""Pictures of every screen for the documentation, from true runs of the digits demo: ``docs/screens/*.svg``.

``make screenshots`` runs the demo twice, about two minutes on two cores; ``--run DIR`` (given once or twice) takes runs
that are there already, which are copied and stay as they are. The run that is shown at work is the first one, as its
files stood in mid-recovery.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import msgspec

from engine import events, rundir
from engine.config import to_toml
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp

# isort: split
from textual.command import CommandList
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from wmdd_tui.screens.compare import CompareScreen
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.widgets.key_bar import KeyBar

OUT = Path(__file__).parent / "screens"
SMALL, HERO = (80, 24), (120, 40)
THEMES = ("dark", "light")
#: The demos: a name and what is changed of the preset.
DEMOS = {"digits": [], "strong-bn": ["recover.r_bn=100.0"]}
#: Where the run at work stands: the share of its recovery, and how long ago its last event was.
AT_WORK, SECONDS_AGO = 0.6, 1.0
#: Not copied: large, and on no screen.
UNSEEN = ("chunk-*.ckpt", "squeeze.*", "teacher*", "train.*", "labels", "student", "proc.json", "engine.lock")
#: Workers that go on as long as their screen is there.
ENDLESS = {"runs", "reader"}
PANELS = {"1": "losses", "2": "layers", "3": "memory", "4": "images", "5": "log", "6": "evaluation"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", default=[], help="a finished run's directory")
    parser.add_argument("--out", type=Path, default=OUT, help="where the pictures go")
    asked = parser.parse_args()
    if wrong := [path for path in asked.run if not (path / "config.toml").is_file()]:
        parser.error(f"--run {wrong[0]} is no run directory")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        os.environ["WMDD_HOME"] = folder
        os.environ.pop("NO_COLOR", None)
        root = Path(folder) / "runs"
        runs = [copied(RunDir(path), root, path.name) for path in asked.run] or [demo(*one) for one in DEMOS.items()]
        while len(runs) < 2:
            runs.append(copied(runs[0], root, runs[0].id + "-again"))
        work = at_work(runs[0], root)
        held.enter_context(rundir.hold_lock(work))
        asked.out.mkdir(parents=True, exist_ok=True)
        now = time.time()
        with mock.patch("time.time", return_value=now):  # a run that seems alive must not grow silent meanwhile
            for theme in THEMES:
                asyncio.run(picture_all(asked.out, theme, runs, work))
                asyncio.run(picture_hero(asked.out, theme, work))
    return 0


# --- runs ------------------------------------------------------------------------------------------------------


def demo(name: str, changes: list[str]) -> RunDir:
    """Run the digits demo. Raises CalledProcessError when it fails."""
    words = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "wmdd_tui", "run", "--preset", "digits", "--name", name, *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    run = rundir.find(name)
    run.process_file.unlink(missing_ok=True)
    return run


def copied(run: RunDir, root: Path, id: str) -> RunDir:
    """A run's files under another root and id."""
    root.mkdir(parents=True, exist_ok=True)
    return RunDir(Path(shutil.copytree(run.path, root / id, ignore=shutil.ignore_patterns(*UNSEEN))))


def at_work(run: RunDir, root: Path) -> RunDir:
    """A copy of a finished run as it stood in mid-recovery, its times moved so that this is now."""
    work = copied(run, root, rundir.new_id("at-work"))
    for folder in (work.images, work.report):
        shutil.rmtree(folder)
        folder.mkdir()
    kept: list[events.AnyEvent] = []
    for event in events.read(run.events_file):
        kept.append(event)
        if isinstance(event, events.Progress) and event.stage == "recover" and event.done >= AT_WORK * event.total:
            break
    shift = time.time() - SECONDS_AGO - kept[-1].t
    shown = [event.path for event in kept if isinstance(event, events.Image)]
    for file in set(work.previews.iterdir()) - {work.path / path for path in shown}:
        file.unlink()
    for event in kept:
        event.t += shift
    work.events_file.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in kept))
    settings = work.config().model_copy(update={"name": "at-work"})
    rundir.write_whole(work.config_file, to_toml(settings).encode())
    os.utime(work.config_file, (kept[0].t, kept[0].t))
    return work


# --- pictures --------------------------------------------------------------------------------------------------


async def picture_all(out: Path, theme: str, runs: list[RunDir], work: RunDir) -> None:
    """Every screen at 80 × 24."""

    async def save(pilot: Pilot[int], name: str) -> None:
        await settled(pilot)
        write(out / f"{name}-{theme}.svg", pilot.app.export_screenshot(simplify=True))

    app = WmddApp(theme=theme)
    async with app.run_test(size=SMALL) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == len(runs) + 1)
        await until(pilot, lambda: str(app.screen.query_one("#facts", Static).content) != "")
        await pilot.press("down", "space", "down", "space")
        await save(pilot, "runs")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: any(found.option_count for found in app.screen.query(CommandList)))
        await save(pilot, "palette")
        await pilot.press("escape", "C")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: app.screen.query_one("#differences", DataTable).row_count > 0)
        await save(pilot, "compare")
        await pilot.press("i")
        await save(pilot, "compare-images")

    app = WmddApp("new", theme=theme)
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press(*"mine")
        app.screen.query_one("#field-ipc", Input).value = "20"
        await save(pilot, "new-run")

    app = WmddApp("monitor", work, theme=theme)
    async with app.run_test(size=SMALL) as pilot:
        await has_read(pilot)
        for key, panel in PANELS.items():
            await pilot.press(key)
            await save(pilot, f"monitor-{panel}")
        await pilot.press("question_mark")
        await save(pilot, "help")

    app = WmddApp("monitor", runs[0], theme=theme)
    async with app.run_test(size=SMALL) as pilot:
        await has_read(pilot)
        for key, panel in (("6", "evaluation"), ("4", "images"), ("7", "distribution")):
            await pilot.press(key)
            await save(pilot, f"finished-{panel}")


async def picture_hero(out: Path, theme: str, work: RunDir) -> None:
    """The monitor with all its panels, for the first page."""
    app = WmddApp("monitor", work, theme=theme)
    async with app.run_test(size=HERO) as pilot:
        await has_read(pilot)
        await settled(pilot)
        write(out / f"monitor-{theme}.svg", app.export_screenshot(simplify=True))


async def until(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Let the app work until something holds. Raises RuntimeError when the app has ended instead."""
    while not condition():
        await pilot.pause(0.01)
        if not pilot.app.is_running:
            raise RuntimeError("the app has ended")


async def has_read(pilot: Pilot[int]) -> None:
    """Wait until the monitor has read its run."""
    screen = pilot.app.screen
    assert isinstance(screen, MonitorScreen)
    await until(pilot, lambda: screen.state != "starting" and screen.view.share == 1)


async def settled(pilot: Pilot[int]) -> None:
    """Wait until the keys are shown, nothing is being measured, and the screen has been laid out twice unchanged."""
    screen, before = pilot.app.screen, ""
    await until(pilot, lambda: all(one.is_finished or one.group in ENDLESS for one in pilot.app.workers))
    await until(pilot, lambda: all(bar.keys for bar in screen.query(KeyBar)))
    while before != (now := pilot.app.export_screenshot(simplify=True)):
        before = now
        await pilot.pause(0.2)


def write(file: Path, picture: str) -> None:
    """Store a picture. Raises ValueError where it shows a path or the host of this machine."""
    own = {"home": str(Path.home()), "temporary": tempfile.gettempdir(), "host": socket.gethostname()}
    own["repository"] = str(Path(__file__).parents[1])
    text = picture.partition("</defs>")[2].replace("&#160;", " ")
    if shown := [name for name, word in own.items() if len(word) > 2 and word in text]:
        raise ValueError(f"{file.name} shows the {shown[0]} of this machine")
    file.write_text(picture, encoding="utf-8")
    print(f"{file.name}: {len(picture) / 1024:.0f} KiB")


if __name__ == "__main__":
    sys.exit(main())
