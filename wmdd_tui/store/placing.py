"""Putting what a command makes where it was asked for: whole or not at all, and never over something by accident."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import InputError, RunFailure

#: Beside the data of an export: what it is. Its key ``exported`` tells an export from any other folder.
CARD = "dataset.json"


def refuse_taken(target: Path, force: bool) -> None:
    """Raise InputError where a file's name is taken and ``force`` is not given; worth asking before long work."""
    if target.is_dir():
        raise InputError(f"{target} is a folder", "name a file to write")
    if target.exists() and not force:
        raise InputError(f"{target} exists already", "choose another name, or add --force to replace it")


def place_file(target: Path, force: bool, write: Callable[[Path], None]) -> None:
    """Have ``write`` make a file under a temporary name, then give it its own. Missing folders are made.

    Raises InputError where the name is taken and ``force`` is not given, RunFailure where it cannot be written.
    """
    refuse_taken(target, force)
    partial = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    with _said(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def place_folder(target: Path, force: bool) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``target`` at the end; an error leaves nothing of it.

    Only an earlier export is ever replaced, whatever ``force`` says. Raises InputError and RunFailure as
    ``place_file`` does.
    """
    _refuse_folder(target, force)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    former = target.with_name(f".{target.name}.{os.getpid()}.old")
    with _said(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            if target.exists():
                os.replace(target, former)
            try:
                os.replace(partial, target)
            except OSError:
                if former.exists():
                    os.replace(former, target)
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(former, ignore_errors=True)


def _refuse_folder(target: Path, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"{target} is a file", "name a folder to write into")
    if not any(target.iterdir()):
        return
    if not force:
        raise InputError(f"{target} exists and is not empty", "choose another folder, or add --force to replace it")
    if not _is_export(target):
        raise InputError(
            f"{target} is no earlier export, so --force does not replace it",
            "choose another folder, or empty this one yourself",
        )


def _is_export(folder: Path) -> bool:
    try:
        card = json.loads((folder / CARD).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and "exported" in card


@contextmanager
def _said(target: Path) -> Iterator[None]:
    """A failing disk as one message."""
    try:
        yield
    except OSError as error:
        raise RunFailure(
            f"cannot write {target}: {error.strerror or error}", "free some space, or choose a place you can write to"
        ) from None
