"""The images of a run as a data set others can read: an image folder, Parquet, or safetensors. Torch-free."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine import __version__
from engine.errors import DataError, InputError, RunDirError
from engine.rundir import ALIVE, RunDir, state_of
from wmdd_tui.store.history import Report, first_hello, silent
from wmdd_tui.store.placing import CARD, place_folder
from wmdd_tui.store.runs import read_report

FORMATS = ("imagefolder", "parquet", "safetensors")
IMAGE_NAME = re.compile(r"class(\d+)_id(\d+)\.png")
ROWS_A_GROUP = 256
SHARD_BYTES = 512 << 20


@dataclass(frozen=True)
class ImageFile:
    """One synthetic image; ``relative`` is its path below the run's image folder, with forward slashes."""

    path: Path
    relative: str
    label: int
    class_id: str
    class_name: str


@dataclass(frozen=True)
class Exported:
    """What an export wrote. ``bytes`` counts the files of ``files`` and the card."""

    folder: Path
    format: str
    images: int
    classes: int
    files: tuple[str, ...]
    bytes: int


def images_of(run: RunDir) -> list[ImageFile]:
    """All images of a run, by class and number. Raises RunDirError where there are none, or only some of them."""
    found = []
    for path in run.images.glob("*/*.png"):
        match = IMAGE_NAME.fullmatch(path.name)
        if match:
            found.append((int(match[1]), int(match[2]), path))
    hello = first_hello(run)
    wanted = read_report(run).get("image_count") or (hello.classes * hello.ipc if hello else None)
    if not found or (wanted is not None and len(found) < wanted):
        _refuse(run, len(found), wanted)
    names = _card(run).get("class_names") or (hello.class_names if hello else [])
    return [
        ImageFile(
            path,
            path.relative_to(run.images).as_posix(),
            label,
            path.parent.name,
            str(names[label]) if label < len(names) else path.parent.name,
        )
        for label, _, path in sorted(found)
    ]


def _refuse(run: RunDir, found: int, wanted: int | None) -> None:
    state = state_of(run)
    has = f"{found} of {wanted} images" if found else "no images"
    if state in ALIVE:
        remedy = f"wait for its recovery to end: wmdd-tui watch {run.id}"
    elif state == "finished":
        remedy = "it ended before the stage recover: choose a run whose run.until is recover or later"
    else:
        remedy = f"let it go on: wmdd-tui resume {run.id}"
    raise RunDirError(f"run {run.id} ({state}) has {has}, so there is nothing whole to export", remedy)


def _card(run: RunDir) -> dict[str, Any]:
    """What the run says of its images; empty for a run that ended before training."""
    try:
        value = json.loads((run.images / CARD).read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def export(run: RunDir, target: Path, form: str, force: bool = False, report: Report = silent) -> Exported:
    """Write the images of a run and a card about them into a folder, whole or not at all.

    ``report`` is told of images written. Raises RunDirError for a run without its images, InputError for a target
    that cannot be used, DataError for a damaged image, RunFailure for a disk that cannot be written.
    """
    target = target.expanduser().absolute()
    here, own = target.resolve(), run.path.resolve()
    if here == own or own in here.parents or here in own.parents:
        raise InputError(f"{target} is part of the run itself or holds it", "choose a folder outside the run")
    rows = images_of(run)
    classes = {row.label: row for row in rows}
    with place_folder(target, force) as folder:
        if form == "imagefolder":
            _write_tree(folder, rows, report)
        elif form == "parquet":
            _write_parquet(folder, rows, report)
        elif form == "safetensors":
            _write_safetensors(folder, rows, report)
        else:
            raise InputError(f"format '{form}' is unknown", f"one of: {', '.join(FORMATS)}")
        written = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in written)
        files = sorted({path.relative_to(folder).parts[0] for path in written})
        known = {
            "name": run.id,
            "class_ids": [classes[label].class_id for label in sorted(classes)],
            "class_names": [classes[label].class_name for label in sorted(classes)],
        }
        card = {
            **known,
            **_card(run),
            "exported": {"run": run.id, "format": form, "images": len(rows), "wmdd-tui": __version__},
        }
        text = json.dumps(card, indent=1, ensure_ascii=False).encode()
        (folder / CARD).write_bytes(text)
    return Exported(target, form, len(rows), len(classes), (*files, CARD), size + len(text))


def _write_tree(folder: Path, rows: Sequence[ImageFile], report: Report) -> None:
    for done, row in enumerate(rows, start=1):
        copy = folder / row.relative
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(row.path, copy)
        report(done, len(rows))


def _write_parquet(folder: Path, rows: Sequence[ImageFile], report: Report) -> None:
    """One shard; ``label`` counts the classes from 0, and the class names stand in the schema's metadata too."""
    import pyarrow  # costs as much as all other commands together
    import pyarrow.parquet

    by_label = {row.label: row.class_name for row in rows}
    names = [by_label.get(label, str(label)) for label in range(max(by_label) + 1)]
    text: dict[str, Any] = {"dtype": "string", "_type": "Value"}
    # A ClassLabel must not hold a name twice, and two classes may well be called the same.
    unique = len(set(names)) == len(names)
    label_type = {"names": names, "_type": "ClassLabel"} if unique else {"dtype": "int64", "_type": "Value"}
    features = {"image": {"_type": "Image"}, "label": label_type, "class_id": text, "class_name": text, "path": text}
    string = pyarrow.string()
    schema = pyarrow.schema(
        [("image", pyarrow.binary()), ("label", pyarrow.int64())]
        + [(name, string) for name in ("class_id", "class_name", "path")],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with pyarrow.parquet.ParquetWriter(folder / "train-00000-of-00001.parquet", schema) as writer:
        for start in range(0, len(rows), ROWS_A_GROUP):
            group = rows[start : start + ROWS_A_GROUP]
            columns = {
                "image": [row.path.read_bytes() for row in group],
                **{name: [getattr(row, name) for row in group] for name in ("label", "class_id", "class_name")},
                "path": [row.relative for row in group],
            }
            writer.write_table(pyarrow.table(columns, schema=schema))
            report(start + len(group), len(rows))


def _write_safetensors(folder: Path, rows: Sequence[ImageFile], report: Report) -> None:
    """Shards of at most ``SHARD_BYTES``: ``images_NCHW`` (uint8) and ``labels_N`` (int64), in the same order."""
    from safetensors.numpy import save_file

    first = _pixels(rows[0])
    size = max(1, SHARD_BYTES // first.nbytes)
    shards = -(-len(rows) // size)
    for index in range(shards):
        part = rows[index * size : (index + 1) * size]
        images_NCHW = np.empty((len(part), *first.shape), dtype=np.uint8)
        for place, row in enumerate(part):
            image_CHW = _pixels(row)
            if image_CHW.shape != first.shape:
                raise DataError(
                    f"{row.path} has another size than {rows[0].path}", "export as imagefolder or parquet instead"
                )
            images_NCHW[place] = image_CHW
            report(index * size + place + 1, len(rows))
        labels_N = np.array([row.label for row in part], dtype=np.int64)
        names = {str(row.label): row.class_name for row in rows}
        save_file(
            {"images_NCHW": images_NCHW, "labels_N": labels_N},
            folder / f"images-{index:05d}-of-{shards:05d}.safetensors",
            metadata={"class_names": json.dumps(names, ensure_ascii=False)},
        )


def _pixels(row: ImageFile) -> npt.NDArray[np.uint8]:
    """An image as (3, H, W). Raises DataError."""
    try:
        with Image.open(row.path) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(
            f"image {row.path} cannot be read: {error}",
            "it is damaged; `--format imagefolder` copies the files as they are",
        ) from None
