"""Synthetic sets of others: which images a folder holds, of which classes, and in what order. Torch-free.

Layouts: class folders named by class id, by number (``new000`` of SRe2L, CDA and WMDD, ``00000`` of RDED) or anything
that sorts as the classes do; images side by side named ``class000_id000.jpg``; Parquet shards with the columns
``image`` and ``class_id``. Images may lie in a folder ``images`` beside ``labels`` (FKD's ``epoch_0/batch_0.tar``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.catalog import IMAGE_SUFFIXES, LABEL_COLUMNS, class_folders, natural_key, parquet_values
from engine.errors import DataError

CARD = "dataset.json"
NUMBERED = re.compile(r"(?:new|class)?_?([0-9]{1,9})")
SIDE_BY_SIDE = re.compile(r"(?:class|new)?_?([0-9]{1,9})[_-](?:id|img)?_?([0-9]{1,9})")
FILE_CLASS = re.compile(r"class([0-9]{1,9})_id[0-9]{1,9}")
EPOCH = re.compile(r"epoch_([0-9]{1,7})")


@dataclass(frozen=True)
class GivenImage:
    """One image: a file, or bytes of a Parquet row. ``key`` sorts as the set's own loader does (ImageFolder, rows)."""

    content: Path | bytes
    name: str
    key: tuple[str, int, str]


@dataclass(frozen=True)
class GivenClass:
    """The images of one class, by number. ``number`` is what the set itself calls the class, if it does."""

    name: str
    number: int | None
    images: list[GivenImage]


@dataclass(frozen=True)
class GivenSet:
    """The classes of a set, in order of their numbers or names; what the images take as files, and when the newest
    was written (seconds of the epoch)."""

    root: Path
    classes: list[GivenClass]
    bytes: int
    changed: float

    def ipc(self) -> int:
        """Images of every class. Raises DataError where classes differ."""
        few = min(self.classes, key=lambda one: len(one.images))
        many = max(self.classes, key=lambda one: len(one.images))
        if len(few.images) != len(many.images):
            raise DataError(
                f"{self.root}: class '{few.name}' has {len(few.images)} images, '{many.name}' has {len(many.images)}",
                "give every class as many images",
            )
        return len(few.images)

    def loader_order(self) -> list[int]:
        """Class by class position of each image, in the order in which the set's own loader numbers them."""
        images = [image for one in self.classes for image in one.images]
        return sorted(range(len(images)), key=lambda at: images[at].key)


def image_root(path: Path) -> Path:
    """Where the images lie: in the folder, or in its ``images`` where there is nothing else but ``labels``."""
    folders = {folder.name for folder in class_folders(path)}
    return path / "images" if "images" in folders and folders <= {"images", "labels"} else path


def read_given(path: Path) -> GivenSet:
    """All images of a folder, whatever its layout. Raises DataError where there are none, or classes are unclear."""
    if not path.is_dir():
        raise DataError(f"'{path}' is no folder of synthetic images", "name one: class folders of images, or *.parquet")
    root = image_root(path)
    folders = [(folder, _pictures(folder)) for folder in class_folders(root)]
    if any(files for _, files in folders):
        return _nested(root, folders)
    files = _pictures(root)
    if any(SIDE_BY_SIDE.fullmatch(file.stem) for file in files):
        return _flat(root, files)
    shards = sorted(root.rglob("*.parquet"))
    if shards:
        return _parquet(root, shards)
    raise DataError(
        f"'{root}' holds no synthetic images",
        "it must hold class folders (new000/…, 00000/…, n01440764/…), files class000_id000.jpg, or *.parquet",
    )


def for_classes(given: GivenSet, class_ids: Sequence[str], ipc: int) -> GivenSet:
    """The set with its classes in the data set's order: by class id, else by number, else as folders sort.

    Raises DataError where classes, their order or the counts differ from what is expected.
    """
    by_name = {one.name: one for one in given.classes}
    known = [class_id for class_id in class_ids if class_id in by_name]
    if known and len(known) < len(class_ids):
        missing = next(class_id for class_id in class_ids if class_id not in by_name)
        raise DataError(f"'{given.root}' has no folder of class '{missing}'", "add it, or take another set")
    if not known:
        _require_order(given, class_ids)
    chosen = [by_name[class_id] for class_id in class_ids] if known else given.classes
    for one in chosen:
        if len(one.images) != ipc:
            raise DataError(
                f"'{given.root}': class '{one.name}' holds {len(one.images)} images, ipc is {ipc}",
                f"set ipc = {len(one.images) or 1}",
            )
    return replace(given, classes=list(chosen))


def _require_order(given: GivenSet, class_ids: Sequence[str]) -> None:
    """Classes that are told by number or order alone must be the data set's. Raises DataError."""
    if len(given.classes) != len(class_ids):
        raise DataError(
            f"'{given.root}' has {len(given.classes)} class folders, the data set has {len(class_ids)} classes",
            "take a set distilled from this data set",
        )
    numbers = [one.number for one in given.classes]
    if None not in numbers and numbers != list(range(len(class_ids))):
        odd = next(at for at, number in enumerate(numbers) if number != at)
        raise DataError(
            f"'{given.root}' numbers its classes {numbers[0]} … {numbers[-1]}; class {odd} is not among them",
            f"the {len(class_ids)} classes of the data set are numbered from 0",
        )
    for one in given.classes:
        _require_own_files(given.root, one)
    told = card(given.root).get("class_ids")
    if isinstance(told, list) and told != list(class_ids):
        odd = next((at for at, (a, b) in enumerate(zip(told, class_ids, strict=False)) if a != b), 0)
        raise DataError(
            f"'{given.root / CARD}' says that class {odd} is '{str(told[odd])[:60] if told else ''}', in the data set "
            f"it is '{class_ids[odd]}'",
            "the classes are in another order: name the folders by class id, or take the data set it was made from",
        )


def _require_own_files(root: Path, one: GivenClass) -> None:
    """Files that say another class than their folder leave the order of classes in doubt. Raises DataError."""
    for image in one.images:
        match = FILE_CLASS.fullmatch(Path(image.name).stem)
        if match and one.number is not None and int(match[1]) != one.number:
            raise DataError(
                f"'{root}': {image.name} is named as of another class than its folder, so the order of the classes is "
                "not clear",
                "name the folders by class id (n01440764), or give folder and files the same number",
            )


def card(root: Path) -> dict[str, Any]:
    """What lies beside the images about them; empty where there is nothing to read."""
    for folder in (root, root.parent):
        try:
            value = json.loads((folder / CARD).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}


def fkd_epochs(path: Path) -> int:
    """How many epochs of labels an FKD folder holds: ``epoch_0`` and on, without a gap. Raises DataError."""
    try:
        found = {int(match[1]) for entry in path.iterdir() if (match := EPOCH.fullmatch(entry.name)) and entry.is_dir()}
    except OSError as error:
        raise DataError(f"FKD folder '{path}' cannot be read: {error.strerror}", "check relabel.path") from None
    if not found:
        raise DataError(f"'{path}' holds no FKD labels: no folder epoch_0", "name the folder that holds epoch_0")
    gap = next((epoch for epoch in range(max(found) + 1) if epoch not in found), None)
    if gap is not None:
        raise DataError(f"FKD folder '{path}' has no epoch_{gap}, but epoch_{max(found)}", "copy it again")
    return len(found)


def folder_bytes(path: Path) -> int:
    """What all files below a folder take. Raises DataError."""
    return _bytes_of([file for file in path.rglob("*") if file.is_file()])


def _pictures(folder: Path) -> list[Path]:
    """Image files in a folder. Raises DataError."""
    try:
        return [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}") from None


def newest(files: Sequence[Path]) -> float:
    """When the newest of some files was written, in seconds of the epoch. Raises DataError."""
    try:
        return max((file.stat().st_mtime for file in files), default=0.0)
    except OSError as error:
        raise DataError(f"'{error.filename}' cannot be read: {error.strerror}") from None


def _bytes_of(files: Sequence[Path]) -> int:
    try:
        return sum(file.stat().st_size for file in files)
    except OSError as error:
        raise DataError(f"'{error.filename}' cannot be read: {error.strerror}") from None


def _nested(root: Path, folders: Sequence[tuple[Path, list[Path]]]) -> GivenSet:
    matches = [NUMBERED.fullmatch(folder.name) for folder, _ in folders]
    numbers = [int(match[1]) if match and all(matches) else None for match in matches]
    found = []
    for (folder, files), number in zip(folders, numbers, strict=True):
        files.sort(key=lambda file: natural_key(file.stem))
        images = [GivenImage(file, f"{folder.name}/{file.name}", (folder.name, 0, file.name)) for file in files]
        found.append(GivenClass(folder.name, number, images))
    if all(matches):
        found.sort(key=lambda one: one.number or 0)
    everything = [file for _, files in folders for file in files]
    return GivenSet(root, found, _bytes_of(everything), newest(everything))


def _flat(root: Path, files: list[Path]) -> GivenSet:
    """Images side by side; their names say class and number."""
    members: dict[int, list[tuple[int, Path]]] = {}
    for file in files:
        match = SIDE_BY_SIDE.fullmatch(file.stem)
        if match is None:
            raise DataError(
                f"'{file}' does not say its class", "images without class folders are named class000_id000.jpg"
            )
        members.setdefault(int(match[1]), []).append((int(match[2]), file))
    found = [
        GivenClass(str(number), number, [GivenImage(file, file.name, ("", 0, file.name)) for _, file in sorted(own)])
        for number, own in sorted(members.items())
    ]
    named = [replace(one, name=f"class {one.name}") for one in found]
    return GivenSet(root, named, _bytes_of(files), newest(files))


def _parquet(root: Path, shards: list[Path]) -> GivenSet:
    """Rows of shards; classes are numbers."""
    import pyarrow
    import pyarrow.parquet

    members: dict[int, list[GivenImage]] = {}
    for shard in shards:
        try:
            table = pyarrow.parquet.read_table(shard)
            columns = table.column_names
        except (pyarrow.ArrowException, OSError, UnicodeError) as error:
            raise DataError(f"{shard} cannot be read as Parquet: {error}", "copy or download it again") from None
        label = next((name for name in LABEL_COLUMNS if name in columns), None)
        if "image" not in columns or label is None:
            raise DataError(
                f"{shard} has columns {', '.join(columns)[:200]}",
                f"needed: image, and one of {', '.join(LABEL_COLUMNS)}",
            )
        for row, (image, number) in enumerate(
            zip(parquet_values(table, "image", shard), parquet_values(table, label, shard), strict=True)
        ):
            content = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(content, bytes) or not isinstance(number, int) or number < 0:
                raise DataError(f"{shard} row {row}: image or label is missing or of the wrong type")
            members.setdefault(number, []).append(GivenImage(content, f"{shard.name}#{row}", (str(shard), row, "")))
    if not members:
        raise DataError(f"'{root}' holds Parquet shards without a row", "take another folder")
    found = [GivenClass(f"class {number}", number, own) for number, own in sorted(members.items())]
    return GivenSet(root, found, _bytes_of(shards), newest(shards))
