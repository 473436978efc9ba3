"""The images of a run as a data set others can read: an image folder, Parquet, safetensors, or FKD with its labels.

Beside the data lie ``dataset.json`` for machines and a data set card (``README.md`` with the contact sheet) for
people. Torch-free: FKD's label files, which only PyTorch can write, are asked of the engine.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine import __version__
from engine.errors import DataError, InputError, RunDirError, RunFailure
from engine.rundir import ALIVE, RunDir, state_of
from wmdd_tui.store.card import SHEET, card_markdown
from wmdd_tui.store.history import Report, first_hello, silent
from wmdd_tui.store.placing import CARD, place_folder
from wmdd_tui.store.runs import read_report

FORMATS = ("imagefolder", "parquet", "safetensors", "fkd")
IMAGE_NAME = re.compile(r"class(\d+)_id(\d+)\.png")
ROWS_A_GROUP = 256
SHARD_BYTES = 512 << 20
README = "README.md"


@dataclass(frozen=True)
class Style:
    """How images are written: PNG as they are, or JPEG of a ``quality`` (1 to 100); class folders named by class id,
    or ``numbered`` as the authors' scripts have them (``new000``); ``weights`` of images beside FKD labels, as WMDD's
    scripts expect them; the ``licence`` that the card states."""

    quality: int = 0
    numbered: bool = False
    weights: bool = False
    licence: str = ""

    @property
    def suffix(self) -> str:
        return ".jpg" if self.quality else ".png"


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
    """What an export wrote. ``bytes`` counts the files of ``files`` and the card; ``label_bytes`` those of labels."""

    folder: Path
    format: str
    images: int
    classes: int
    files: tuple[str, ...]
    bytes: int
    label_bytes: int = 0


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


def export(
    run: RunDir, target: Path, form: str, force: bool = False, report: Report = silent, style: Style | None = None
) -> Exported:
    """Write the images of a run and a card about them into a folder, whole or not at all.

    ``report`` is told of images written. Raises RunDirError for a run without its images, InputError for a target
    or style that cannot be used, DataError for a damaged image, RunFailure for a disk that cannot be written.
    """
    style = style or Style()
    target = target.expanduser().absolute()
    here, own = target.resolve(), run.path.resolve()
    if here == own or own in here.parents or here in own.parents:
        raise InputError(f"{target} is part of the run itself or holds it", "choose a folder outside the run")
    _require_style(form, style)
    rows = images_of(run)
    classes = {row.label: row for row in rows}
    with place_folder(target, force) as folder:
        if form == "imagefolder":
            _write_tree(folder, rows, report, style)
        elif form == "parquet":
            _write_parquet(folder, rows, report, style)
        elif form == "safetensors":
            _write_safetensors(folder, rows, report)
        elif form == "fkd":
            _write_tree(folder / "images", rows, silent, Style(style.quality, numbered=True))
            _write_labels(run, folder, report, style)
        else:
            raise InputError(f"format '{form}' is unknown", f"one of: {', '.join(FORMATS)}")
        size, labels = _size_of(folder), _size_of(folder / "labels")
        files = sorted({path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()})
        known = {
            "name": run.id,
            "class_ids": [classes[label].class_id for label in sorted(classes)],
            "class_names": [classes[label].class_name for label in sorted(classes)],
        }
        card = {
            **known,
            **_card(run),
            "licence": style.licence,
            "exported": {
                "run": run.id, "format": form, "images": len(rows), "bytes": size, "label_bytes": labels,
                "jpeg_quality": style.quality or None, "wmdd-tui": __version__,
            },
        }  # fmt: skip
        texts = {CARD: json.dumps(card, indent=1, ensure_ascii=False).encode(errors="backslashreplace")}
        sheet = run.report / SHEET
        if sheet.is_file():
            texts[SHEET] = sheet.read_bytes()
        texts[README] = card_markdown(card, form, sheet=SHEET in texts).encode(errors="replace")
        for name, text in texts.items():
            (folder / name).write_bytes(text)
    extra = sum(len(text) for text in texts.values())
    return Exported(target, form, len(rows), len(classes), (*files, *texts), size + extra, labels)


def _require_style(form: str, style: Style) -> None:
    """Raise InputError for a style that the format has no use for."""
    if style.quality and not 1 <= style.quality <= 100:
        raise InputError(f"a JPEG quality of {style.quality} is none", "1 to 100; 95 looks like the original")
    if style.quality and form == "safetensors":
        raise InputError("safetensors holds pixels, which have no JPEG quality", "leave --quality out")
    if style.numbered and form not in ("imagefolder", "fkd"):
        raise InputError(f"{form} has no class folders to number", "leave --numbered out")
    if style.weights and form != "fkd":
        raise InputError(f"{form} has no soft labels to put weights beside", "leave --weights out, or --format fkd")


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _encoded(row: ImageFile, style: Style) -> bytes:
    """The image's file, as it is or as JPEG. Raises DataError."""
    if not style.quality:
        return row.path.read_bytes()
    buffer = io.BytesIO()
    Image.fromarray(_pixels(row).transpose(1, 2, 0)).save(buffer, "JPEG", quality=style.quality)
    return buffer.getvalue()


def _write_tree(folder: Path, rows: Sequence[ImageFile], report: Report, style: Style) -> None:
    digits = max(3, len(str(rows[-1].label)))
    for done, row in enumerate(rows, start=1):
        place = Path(f"new{row.label:0{digits}d}", Path(row.relative).name) if style.numbered else Path(row.relative)
        copy = (folder / place).with_suffix(style.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if style.quality:
            copy.write_bytes(_encoded(row, style))
        else:
            shutil.copyfile(row.path, copy)
        report(done, len(rows))


def _write_labels(run: RunDir, folder: Path, report: Report, style: Style) -> None:
    """Have the engine write FKD's label files; raises what it says is wrong."""
    command = [sys.executable, "-m", "engine", "fkd", str(run.path), str(folder / "images"), str(folder / "labels")]
    command += ["weights"] * style.weights
    answer: dict[str, Any] = {}
    said = "it said nothing"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as engine:
        for line in engine.stdout or ():
            try:
                answer = dict(json.loads(line))
            except (ValueError, TypeError):
                said = line.strip() or said
                continue
            if "done" in answer:
                report(answer["done"], answer["total"])
    if "error" in answer:
        kind = InputError if engine.returncode == InputError.exit_code else RunFailure
        raise kind(answer["error"], answer.get("remedy", ""))
    if engine.returncode or "written" not in answer:
        raise RunFailure(f"the engine wrote no labels: {said}", "see `wmdd-tui doctor`")


def _write_parquet(folder: Path, rows: Sequence[ImageFile], report: Report, style: Style) -> None:
    """One shard; ``label`` and ``class_id`` count the classes from 0, whose names stand in the metadata too."""
    import pyarrow  # costs as much as all other commands together
    import pyarrow.parquet

    by_label = {row.label: row.class_name for row in rows}
    classes = [by_label.get(label, str(label)) for label in range(max(by_label) + 1)]
    text: dict[str, Any] = {"dtype": "string", "_type": "Value"}
    number: dict[str, Any] = {"dtype": "int64", "_type": "Value"}
    # A ClassLabel must not hold a name twice, and two classes may well be called the same.
    unique = len(set(classes)) == len(classes)
    label_type = {"names": classes, "_type": "ClassLabel"} if unique else number
    strings = ("class_folder", "class_name", "path")
    features = {"image": {"_type": "Image"}, "label": label_type, "class_id": number, **dict.fromkeys(strings, text)}
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("label", pyarrow.int64()),
            ("class_id", pyarrow.int64()),
        ]
        + [(name, pyarrow.string()) for name in strings],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with pyarrow.parquet.ParquetWriter(folder / "train-00000-of-00001.parquet", schema) as writer:
        for start in range(0, len(rows), ROWS_A_GROUP):
            group = rows[start : start + ROWS_A_GROUP]
            names = [str(Path(row.relative).with_suffix(style.suffix)) for row in group]
            columns = {
                # The form Hugging Face keeps images in: of plain bytes it would not see that they are pictures.
                "image": [
                    {"bytes": _encoded(row, style), "path": name} for row, name in zip(group, names, strict=True)
                ],
                "label": [row.label for row in group],
                "class_id": [row.label for row in group],
                "class_folder": [row.class_id for row in group],
                "class_name": [row.class_name for row in group],
                "path": names,
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
