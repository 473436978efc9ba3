"""Classes emerging from noise: the previews a run kept during recovery, as an animated GIF."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from engine import events
from engine.errors import DataError, EngineError, InputError, RunDirError
from engine.rundir import ALIVE, RunDir, state_of
from wmdd_tui.store.history import Report, all_events, silent
from wmdd_tui.store.placing import place_file, refuse_taken

PREVIEW_NAME = re.compile(r"chunk-(\d+)-(\d+)\.png")
GAP = 2
CAPTION = 12
GROUND, INK = "#101010", "#e4e4e4"
#: Tiles are enlarged to about this many pixels where no scale is asked for.
TILE = 112
GIF_TICK_MS = 10


@dataclass(frozen=True)
class Previews:
    """The previews of one chunk by iteration, and the class names of the images in them (may be empty)."""

    chunk: int
    files: tuple[tuple[int, Path], ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Animated:
    """What an animation shows; ``seconds`` is how long it plays."""

    file: Path
    chunk: int
    frames: int
    first_iteration: int
    last_iteration: int
    width: int
    height: int
    seconds: float


def previews_of(run: RunDir, chunk: int) -> Previews:
    """The previews of a chunk, in order. Raises RunDirError where the run kept none, InputError for another chunk."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in run.previews.glob("chunk-*.png"):
        if match := PREVIEW_NAME.fullmatch(path.name):
            found.setdefault(int(match[1]), []).append((int(match[2]), path))
    if not found:
        _refuse(run)
    if chunk not in found:
        chunks = sorted(found)
        those = f"{chunks[0]}" if len(chunks) == 1 else f"{len(chunks)} chunks from {chunks[0]} to {chunks[-1]}"
        raise InputError(f"run {run.id} has no previews of chunk {chunk}", f"it has those of {those}")
    names: list[str] = []
    classes: list[int] = []
    for event in all_events(run):
        if isinstance(event, events.Hello):
            names = event.class_names
        elif isinstance(event, events.Image) and event.chunk == chunk:
            classes = event.classes
            break
    shown = tuple(names[label] if 0 <= label < len(names) else str(label) for label in classes)
    return Previews(chunk, tuple(sorted(found[chunk])), shown)


def _refuse(run: RunDir) -> None:
    try:
        config = run.config()
    except EngineError:
        config = None
    if config is not None and config.recover.preview_every == 0:
        raise RunDirError(
            f"run {run.id} kept no previews: its recover.preview_every is 0",
            "start a run with --set recover.preview_every=25, or any other number of iterations",
        )
    if config is not None and config.recover.objective in ("real", "start", "given"):
        raise RunDirError(
            f"run {run.id} optimised no images: its recover.objective is '{config.recover.objective}'",
            "animate a run whose recover.objective is wmdd or sre2l",
        )
    state = state_of(run)
    wait = f"wait for its recovery: wmdd-tui watch {run.id}" if state in ALIVE else "choose a run that reached recover"
    raise RunDirError(f"run {run.id} ({state}) has no previews", wait)


def animate(
    run: RunDir,
    target: Path,
    chunk: int = 0,
    fps: float = 6.0,
    scale: int = 0,
    columns: int = 5,
    hold: float = 2.5,
    force: bool = False,
    report: Report = silent,
) -> Animated:
    """Write the previews of a chunk as a GIF that repeats; the last one, the images as they are, stays ``hold`` s.

    ``scale`` enlarges each pixel so many times (0: to tiles of about ``TILE`` px); ``columns`` tiles stand in a row.
    ``report`` is told of frames. Raises InputError, RunDirError (no previews), DataError (a damaged preview),
    RunFailure (cannot write).
    """
    if target.suffix.lower() != ".gif":
        raise InputError(f"'{target.name}' is no name of an animation", "end it in .gif")
    refuse_taken(target, force)
    found = previews_of(run, chunk)
    side, count = _shape(found.files[0][1])
    scale = scale or max(1, round(TILE / side))
    layout = _Layout(side * scale, min(columns, count), count, found.names)
    tick = max(2 * GIF_TICK_MS, round(1000 / fps / GIF_TICK_MS) * GIF_TICK_MS)
    durations = [tick] * (len(found.files) - 1) + [max(tick, round(hold * 1000 / GIF_TICK_MS) * GIF_TICK_MS)]
    last = found.files[-1][0]

    def frames() -> Iterator[Image.Image]:
        for done, (iteration, path) in enumerate(found.files, start=1):
            yield _frame(_tiles(path, side, count), layout, f"iteration {iteration}/{last}")
            report(done, len(found.files))

    def write(path: Path) -> None:
        sequence = frames()
        first = next(sequence)
        first.save(path, "GIF", save_all=True, append_images=sequence, duration=durations, loop=0, disposal=1)

    place_file(target, force, write)
    seconds = sum(durations) / 1000
    return Animated(target, chunk, len(found.files), found.files[0][0], last, layout.width, layout.height, seconds)


@dataclass(frozen=True)
class _Layout:
    """Where tiles of ``side`` px stand; captions only where the names are known."""

    side: int
    columns: int
    count: int
    names: tuple[str, ...]

    @property
    def step(self) -> tuple[int, int]:
        """From one tile to the next, across and down."""
        return self.side + GAP, self.side + GAP + (CAPTION + GAP if self.names else 0)

    @property
    def width(self) -> int:
        return GAP + self.columns * self.step[0]

    @property
    def height(self) -> int:
        return GAP + math.ceil(self.count / self.columns) * self.step[1] + CAPTION + GAP


def _shape(path: Path) -> tuple[int, int]:
    """Side of an image and number of images of a preview, which holds square images side by side."""
    with _open(path) as image:
        return image.height, max(1, image.width // image.height)


def _open(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
        return image
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"preview {path} cannot be read: {error}", "it is damaged; remove it and try again") from None


def _tiles(path: Path, side: int, count: int) -> list[Image.Image]:
    with _open(path) as image:
        row = image.convert("RGB")
    if row.size != (side * count, side):
        raise DataError(f"preview {path} has another size than the first of its chunk", "remove it and try again")
    return [row.crop((index * side, 0, (index + 1) * side, side)) for index in range(count)]


def _frame(tiles: Sequence[Image.Image], layout: _Layout, caption: str) -> Image.Image:
    frame = Image.new("RGB", (layout.width, layout.height), GROUND)
    draw = ImageDraw.Draw(frame)
    font = ImageFont.load_default(CAPTION - 2)
    across, down = layout.step
    for index, tile in enumerate(tiles):
        left, top = GAP + index % layout.columns * across, GAP + index // layout.columns * down
        frame.paste(tile.resize((layout.side, layout.side), Image.Resampling.NEAREST), (left, top))
        if index < len(layout.names):
            name = _fitting(layout.names[index], font, layout.side)
            draw.text((left, top + layout.side), name, fill=INK, font=font)
    draw.text((GAP, layout.height - CAPTION - GAP), _fitting(caption, font, layout.width), fill=INK, font=font)
    return frame.quantize(256, dither=Image.Dither.NONE)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a one-line text as fits."""
    text = " ".join(text.split())
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
