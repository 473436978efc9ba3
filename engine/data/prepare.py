"""Put the layouts that people download into ImageFolder form, without copying where links serve."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.catalog import IMAGE_SUFFIXES, DatasetFacts, class_folders, dataset_facts
from engine.errors import DataError

#: Bytes a file name may have on the usual file systems.
LONGEST_NAME = 255
VAL_LABELS = ("LOC_val_solution.csv", "val_map.txt", "val.txt")


def prepare(name: str, source: Path, target: Path, progress: Callable[[int, int], None]) -> DatasetFacts:
    """Make ``target/train/<wnid>/`` and ``target/val/<wnid>/`` from a downloaded folder.

    ``name`` is "tiny-imagenet" (``val/val_annotations.txt``) or "imagenet" (flat validation folder with
    ``LOC_val_solution.csv``, ``val_map.txt`` or ``val.txt``). Raises DataError.
    """
    if not source.is_dir():
        raise DataError(f"--from '{source}' is no folder", "name the folder as unpacked")
    makers = {"tiny-imagenet": _tiny_imagenet, "imagenet": _imagenet}
    if name not in makers:
        raise DataError(f"cannot prepare '{name}'", f"known layouts: {', '.join(makers)}")
    pairs = list(makers[name](source))
    for done, (file, place) in enumerate(pairs, start=1):
        _link(file, target / place)
        progress(done, len(pairs))
    return dataset_facts("imagefolder", target)


def _tiny_imagenet(source: Path) -> Iterator[tuple[Path, Path]]:
    for folder in _train_folders(source / "train"):
        for file in _images(folder / "images"):
            yield file, Path("train", folder.name, file.name)
    annotations = source / "val" / "val_annotations.txt"
    rows = (line.split("\t") for line in _lines(annotations))
    yield from _val_pairs(source / "val" / "images", {row[0]: row[1] for row in rows if len(row) > 1})


def _imagenet(source: Path) -> Iterator[tuple[Path, Path]]:
    for folder in _train_folders(source / "train"):
        for file in _images(folder):
            yield file, Path("train", folder.name, file.name)
    labels = next((p for base in (source, source / "val") for n in VAL_LABELS if (p := base / n).is_file()), None)
    if labels is None:
        raise DataError(
            f"'{source}' has no file that names the classes of the validation images",
            f"put one of {', '.join(VAL_LABELS)} there",
        )
    if labels.suffix == ".csv":
        try:
            rows = [row for row in csv.reader(_lines(labels)) if len(row) > 1 and row[0] != "ImageId"]
        except csv.Error as error:
            raise DataError(f"'{labels}' is no CSV: {error}", "download it again") from None
        classes = {f"{row[0]}.JPEG": row[1].split()[0] for row in rows if row[1].strip()}
    else:
        classes = {parts[0]: parts[1] for line in _lines(labels) if len(parts := line.split()) > 1}
    yield from _val_pairs(source / "val", classes)


def _train_folders(train: Path) -> list[Path]:
    if not train.is_dir() or not class_folders(train):
        raise DataError(f"'{train}' has no class folders", "--from must hold train/<wnid>/…")
    return class_folders(train)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read: {error}") from None


def _images(folder: Path) -> list[Path]:
    try:
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise DataError(f"folder '{folder}' cannot be read: {error.strerror}") from None


def _val_pairs(folder: Path, classes: dict[str, str]) -> Iterator[tuple[Path, Path]]:
    for file in _images(folder):
        if file.name not in classes:
            raise DataError(f"validation image '{file}' has no class in the label file")
        name = classes[file.name]
        if set(name) & {"/", "\0"} or name in ("", ".", "..") or len(os.fsencode(name)) > LONGEST_NAME:
            raise DataError(f"{name[:60]!r} is no class name (image '{file.name}')", "repair the label file")
        yield file, Path("val", name, file.name)


def _link(file: Path, place: Path) -> None:
    """Hard link, else copy across file systems. A file already there stays. Raises DataError, OSError."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            return
    except OSError as error:
        raise DataError(f"'{place}' cannot be made: {error.strerror}", "choose another target") from None
    try:
        os.link(file, place)
    except OSError:
        shutil.copyfile(file, place)
