"""CIFAR-10/100 in their standard archives, python-pickle or binary, read without unsafe unpickling."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data.listing import Listing, Split
from engine.errors import DataError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LAYOUT = {
    "cifar10": (
        [f"data_batch_{i}" for i in range(1, 6)],
        ["test_batch"],
        "cifar-10-batches-py",
        "cifar-10-batches-bin",
    ),
    "cifar100": (["train"], ["test"], "cifar-100-python", "cifar-100-binary"),
}
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds only plain values and NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def listing(path: str, kind: str) -> Listing:
    """List an archive's folder, the folder that holds it, or its ``.tar.gz``. Raises DataError."""
    train_files, test_files, python_folder, binary_folder = LAYOUT[kind]
    read, binary = _reader(Path(path), python_folder, binary_folder, train_files + test_files)
    suffix = ".bin" if binary else ""
    classes = 10 if kind == "cifar10" else 100
    parse = _parse_binary if binary else _parse_pickle
    train = _join([parse(read(name + suffix), kind, name) for name in train_files], "train", classes)
    val = _join([parse(read(name + suffix), kind, name) for name in test_files], "test", classes)
    names = CIFAR10 if kind == "cifar10" else _fine_names(read, binary)
    width = len(str(classes - 1))
    return Listing(kind, tuple(f"{label:0{width}d}" for label in range(classes)), names, train, val)


def _reader(
    path: Path, python_folder: str, binary_folder: str, needed: list[str]
) -> tuple[Callable[[str], bytes], bool]:
    if path.is_file():
        return _tar_reader(path)
    for folder, binary in (
        (path / python_folder, False),
        (path, False),
        (path / binary_folder, True),
        (path, True),
    ):
        if (folder / (needed[0] + (".bin" if binary else ""))).is_file():
            return (lambda name, folder=folder: _read_file(folder / name)), binary
    raise DataError(
        f"data.path = '{path}' holds no {python_folder} or {binary_folder}",
        "unpack the standard archive there",
    )


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "unpack the standard archive again") from None


def _tar_reader(path: Path) -> tuple[Callable[[str], bytes], bool]:
    try:
        with tarfile.open(path) as archive:
            content = {
                Path(member.name).name: file.read()
                for member in archive
                if member.isfile() and (file := archive.extractfile(member)) is not None
            }
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} is no readable tar archive: {error}") from None

    def read(name: str) -> bytes:
        if name not in content:
            raise DataError(f"archive {path} holds no file '{name}'", "use the standard archive")
        return content[name]

    return read, any(name.endswith("_batch.bin") or name == "train.bin" for name in content)


def _parse_pickle(data: bytes, kind: str, name: str) -> tuple[np.ndarray[Any, Any], list[int]]:
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels = np.asarray(content[b"data"]).reshape(-1, 3, 32, 32)
        labels = [int(label) for label in content[b"labels" if kind == "cifar10" else b"fine_labels"]]
    except pickle.UnpicklingError as error:
        raise DataError(f"{kind} file '{name}' is refused: {error}; nothing was executed") from None
    except Exception as error:  # unpickling damaged bytes may raise anything
        raise DataError(f"{kind} file '{name}' is damaged: {error}", "unpack the standard archive again") from None
    if pixels.dtype != np.uint8:
        told = f"{kind} file '{name}' is damaged: its pixels are {pixels.dtype}, not bytes"
        raise DataError(told, "unpack the standard archive again")
    return pixels, labels


def _parse_binary(data: bytes, kind: str, name: str) -> tuple[np.ndarray[Any, Any], list[int]]:
    head = 1 if kind == "cifar10" else 2
    record = head + 3072
    if not data or len(data) % record:
        raise DataError(f"{kind} file '{name}.bin' is damaged: {len(data)} bytes is no multiple of {record}")
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    return rows[:, head:].reshape(-1, 3, 32, 32), rows[:, head - 1].tolist()


def _join(parts: list[tuple[np.ndarray[Any, Any], list[int]]], name: str, classes: int) -> Split:
    pixels = np.concatenate([part for part, _ in parts])
    labels = [label for _, part in parts for label in part]
    if len(labels) != len(pixels) or any(not 0 <= label < classes for label in labels):
        raise DataError(f"the {name} labels do not fit the images: {len(labels)} labels, {len(pixels)} images")
    mark = hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
    items = list(torch.from_numpy(np.ascontiguousarray(pixels)))
    return Split(items, [f"{name}/{i}" for i in range(len(items))], [mark] * len(items), torch.tensor(labels))


def _fine_names(read: Callable[[str], bytes], binary: bool) -> tuple[str, ...]:
    """The names of the 100 classes. Raises DataError."""
    name = "fine_label_names.txt" if binary else "meta"
    content = read(name)
    try:
        if binary:
            names = content.decode().split()
        else:
            found = _ArrayUnpickler(io.BytesIO(content), encoding="utf-8").load()["fine_label_names"]
            names = [str(one) for one in found]
    except Exception as error:  # unpickling damaged bytes may raise anything
        raise DataError(f"cifar100 file '{name}' is damaged: {error}", "unpack the standard archive again") from None
    if len(names) != 100:
        raise DataError(
            f"cifar100 file '{name}' names {len(names)} classes, not 100", "unpack the standard archive again"
        )
    return tuple(names)
