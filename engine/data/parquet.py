"""Parquet shards with image bytes and labels, as Hugging Face data sets store them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch

from engine.catalog import LABEL_COLUMNS, parquet_class_names, parquet_values
from engine.data.listing import Listing, Split
from engine.errors import DataError

TRAIN, VAL = ("train",), ("val", "validation", "test")


def listing(path: str) -> Listing:
    """List a folder of shards named ``train*.parquet`` and ``val*``/``test*``, or sub-folders so named.

    Needs a column ``image`` (bytes, or a struct with ``bytes``) and one of label, class_id, fine_label, labels.
    Encoded images are kept in memory. Raises DataError.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"data.path = '{path}' is no folder", "name the folder with the *.parquet shards")
    shards = sorted(root.rglob("*.parquet"))
    val = [shard for shard in shards if _belongs(shard.relative_to(root), VAL)]
    train = [shard for shard in shards if shard not in val]
    if not train:
        raise DataError(f"data.path = '{path}' holds no training *.parquet file", "name shards train-….parquet")
    train_split = _split(root, train)
    if not len(train_split.items):
        raise DataError(f"data.path = '{path}' holds no training image: its shards are empty", "take another folder")
    names = parquet_class_names(train[0]) or tuple(str(label) for label in range(int(train_split.labels_N.max()) + 1))
    val_split = _split(root, val) if val else None
    for split in (train_split, val_split):
        if split is not None and len(split.items) and int(split.labels_N.max()) >= len(names):
            raise DataError(f"{path}: label {int(split.labels_N.max())} is outside the {len(names)} classes")
    width = len(str(len(names) - 1))
    ids = tuple(f"{label:0{width}d}" for label in range(len(names)))
    return Listing(root.name, ids, names, train_split, val_split)


def _belongs(relative: Path, words: tuple[str, ...]) -> bool:
    return any(part.startswith(words) for part in relative.parts)


def _split(root: Path, shards: list[Path]) -> Split:
    items: list[bytes] = []
    names: list[str] = []
    marks: list[str] = []
    labels: list[int] = []
    paths: list[str] = []
    for shard in shards:
        try:
            table = pyarrow.parquet.read_table(shard)
            columns = table.column_names
        except (pyarrow.ArrowException, OSError, UnicodeError) as error:
            raise DataError(f"{shard} cannot be read as Parquet: {error}", "copy or download it again") from None
        label_column = next((name for name in LABEL_COLUMNS if name in columns), None)
        if "image" not in columns or label_column is None:
            raise DataError(
                f"{shard} has columns {', '.join(columns)}",
                f"needed: image, and one of {', '.join(LABEL_COLUMNS)}",
            )
        own = parquet_values(table, "path", shard) if "path" in columns else [None] * len(table)
        for row, (image, label) in enumerate(
            zip(parquet_values(table, "image", shard), parquet_values(table, label_column, shard), strict=True)
        ):
            content = image.get("bytes") if isinstance(image, dict) else image
            if not isinstance(content, bytes) or not isinstance(label, int) or label < 0:
                raise DataError(f"{shard} row {row}: image or label is missing or of the wrong type")
            items.append(content)
            labels.append(label)
            names.append(f"{shard.relative_to(root)}#{row}")
            named = own[row] or (image.get("path") if isinstance(image, dict) else None)
            paths.append(named if isinstance(named, str) else names[-1])
            marks.append(hashlib.blake2b(content, digest_size=8).hexdigest())
    return Split(items, names, marks, torch.tensor(labels, dtype=torch.int64), paths)
