"""ImageFolder trees: ``train/<class>/*.jpg`` with ``val/`` or ``test/``, or class folders alone."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from engine.catalog import IMAGE_SUFFIXES, class_folders, class_names, split_folders
from engine.data.listing import Listing, Split
from engine.errors import DataError


def listing(path: str, labelled_elsewhere: bool = False) -> Listing:
    """List a tree. Raises DataError for a missing path, no classes, or splits whose classes differ.

    Training images whose labels are ``labelled_elsewhere`` need no class folders: where ``train/`` has others than
    ``val/``, all images below it are taken, of unknown class.
    """
    root = Path(path)
    train_folder, val_folder = split_folders(root)
    if labelled_elsewhere and val_folder is not None:
        validated = tuple(folder.name for folder in class_folders(val_folder))
        if validated and {folder.name for folder in class_folders(train_folder)} != set(validated):
            outside: list[str] = []
            held = _split(root, val_folder, validated, outside)
            train = _unknown(root, train_folder)
            return Listing(root.name, validated, class_names(root, validated), train, held, _led_out(root, outside))
    class_ids = tuple(folder.name for folder in class_folders(train_folder))
    if not class_ids:
        raise DataError(
            f"data.path = '{path}': {train_folder} has no class folders",
            "an ImageFolder tree is train/<class>/<image> and val/<class>/<image>",
        )
    outside = []
    train = _split(root, train_folder, class_ids, outside)
    val = None
    if val_folder is not None:
        others = {folder.name for folder in class_folders(val_folder)}
        if others != set(class_ids):
            odd = sorted(others.symmetric_difference(class_ids))[0]
            raise DataError(
                f"data.path = '{path}': class '{odd}' is in only one of {train_folder.name}/ and {val_folder.name}/",
                "give both splits the same class folders",
            )
        val = _split(root, val_folder, class_ids, outside)
    names = class_names(root, class_ids)
    return Listing(root.name, class_ids, names, train, val, _led_out(root, outside))


def _led_out(root: Path, outside: list[str]) -> tuple[str, ...]:
    return (f"{len(outside)} links lead out of {root}, the first: {outside[0]}",) if outside else ()


def _unknown(root: Path, folder: Path) -> Split:
    """All images below a folder, in the order of their paths, without labels. Links to folders are not followed."""
    places = sorted([folder, *(Path(at, name) for at, names, _ in os.walk(folder) for name in names)])
    entries = [entry for place in places for entry, _ in _image_files(place)]
    if not entries:
        raise DataError(f"{folder} holds no image", f"put images ({', '.join(sorted(IMAGE_SUFFIXES))}) there")
    items = [Path(entry.path) for entry in entries]
    names = [str(item.relative_to(root)) for item in items]
    return Split(items, names, [_mark(entry) for entry in entries], torch.full((len(items),), -1))


def _split(root: Path, folder: Path, class_ids: tuple[str, ...], outside: list[str]) -> Split:
    items: list[Path] = []
    marks: list[str] = []
    labels: list[int] = []
    inside = root.resolve()
    for label, class_id in enumerate(class_ids):
        files = _image_files(folder / class_id)
        if _leads_out(folder / class_id, inside):
            outside.append(str(folder / class_id))
        if not files:
            raise DataError(
                f"class folder {folder / class_id} holds no image",
                f"put images ({', '.join(sorted(IMAGE_SUFFIXES))}) there or remove the folder",
            )
        for entry, target in files:
            if target is not None and _leads_out(target, inside):
                outside.append(str(target))
            items.append(Path(entry.path))
            marks.append(_mark(entry))
            labels.append(label)
    names = [str(item.relative_to(root)) for item in items]
    return Split(items, names, marks, torch.tensor(labels, dtype=torch.int64))


def _leads_out(path: Path, inside: Path) -> bool:
    try:
        return not path.resolve().is_relative_to(inside)
    except (OSError, RuntimeError):  # links that lead to each other; reading says what is wrong
        return False


def _mark(entry: os.DirEntry[str]) -> str:
    """What identifies the content; a link that leads nowhere has none, and reading it says so."""
    try:
        facts = entry.stat()
    except OSError:
        return "unreadable"
    return f"{facts.st_size}-{facts.st_mtime_ns}"


def _image_files(folder: Path) -> list[tuple[os.DirEntry[str], Path | None]]:
    """Image files in a class folder, sorted by name; links with their path. Folders, pipes and devices are left out."""
    try:
        with os.scandir(folder) as entries:
            images = [entry for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
        found = [
            entry for entry in images if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
        ]
        return [(e, Path(e.path) if e.is_symlink() else None) for e in sorted(found, key=lambda e: e.name)]
    except OSError as error:
        raise DataError(f"class folder {folder} cannot be read: {error.strerror}") from None
