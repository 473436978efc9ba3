"""Facts about data sets and classes that need no torch: what a folder holds, what is wrong with it."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from engine.errors import DataError

if TYPE_CHECKING:
    import pyarrow

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
VAL_FOLDERS = ("val", "validation", "test")
LABEL_COLUMNS = ("label", "class_id", "fine_label", "labels")
#: What Pillow raises for a file that is no image, is damaged, or claims to be gigantic.
NO_IMAGE = (OSError, ValueError, SyntaxError, ArithmeticError, LookupError, TypeError, Image.DecompressionBombError)
NAME_FILES = ("words.txt", "LOC_synset_mapping.txt", "classes.txt", "class_names.txt")
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
ARCHITECTURES = (
    "convnet3", "convnet4", "resnet18", "resnet34", "resnet50", "resnet101", "vgg11_bn", "vgg16_bn",
    "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "shufflenet_v2_x1_0", "regnet_y_400mf",
)  # fmt: skip
#: Students that cannot be teachers: they have no BatchNorm. The sizes are timm's.
TRANSFORMERS = ("vit_b_16", "swin_t", "vit_tiny", "vit_small", "vit_base")


@dataclass(frozen=True)
class DatasetFacts:
    """What a data set holds; ``problem`` is empty where nothing is wrong. Sizes in pixels and bytes."""

    kind: str
    path: str
    name: str
    classes: int = 0
    train_images: int = 0
    val_images: int = 0
    native_size: tuple[int, int] | None = None
    bytes: int = 0
    problem: str = ""


def natural_key(name: str) -> tuple[int, int, str]:
    """Numbers in numeric order, before names in alphabetical order."""
    return (0, int(name), name) if re.fullmatch(r"[0-9]{1,18}", name) else (1, 0, name)


def class_folders(folder: Path) -> list[Path]:
    """Sub-folders in class order; hidden ones are not classes. Raises DataError."""
    try:
        found = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"folder {folder} cannot be read: {error.strerror}", "check data.path") from None
    numeric = all(re.fullmatch(r"[0-9]{1,18}", entry.name) for entry in found)
    return sorted(found, key=lambda entry: natural_key(entry.name) if numeric else (1, 0, entry.name))


def split_folders(root: Path) -> tuple[Path, Path | None]:
    """Training folder, and validation folder where there is one. Raises DataError for a missing path."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"data.path = '{root}' {what}", "name an existing folder: --set data.path=/path/to/images")
    train = root / "train"
    if not train.is_dir():
        return root, None
    return train, next((root / name for name in VAL_FOLDERS if (root / name).is_dir()), None)


def class_names(root: Path, class_ids: Sequence[str]) -> tuple[str, ...]:
    """Readable names of classes: from a name file beside the set, ImageNette's own, or the folder's name."""
    known = dict(IMAGENETTE)
    for name in NAME_FILES:
        known.update(_read_names(root / name))
    return tuple(known.get(class_id, class_id) for class_id in class_ids)


def _read_names(path: Path) -> dict[str, str]:
    """``id name, synonyms`` a line; empty where the file is absent or unreadable."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (re.split(r"[\t ,]", line.strip(), maxsplit=1) for line in lines)
    return {pair[0]: next(csv.reader([pair[1]]))[0].strip() for pair in pairs if len(pair) == 2 and pair[1].strip()}


def dataset_facts(kind: str, path: str | Path) -> DatasetFacts:
    """Count a data set without decoding it; what is wrong is said in ``problem``, never raised."""
    root = Path(path)
    try:
        if kind == "imagefolder":
            return _folder_facts(root)
        if not root.exists():
            return DatasetFacts(kind, str(path), root.name, problem="does not exist")
        if kind == "parquet":
            return _parquet_facts(root)
        classes = 100 if kind == "cifar100" else 10
        return DatasetFacts(kind, str(path), root.name, classes, 50_000, 10_000, (32, 32))
    except (DataError, OSError) as error:
        return DatasetFacts(kind, str(path), root.name, problem=str(error).splitlines()[0])


def _folder_facts(root: Path) -> DatasetFacts:
    train, val = split_folders(root)
    folders = class_folders(train)
    counts = [_count(folder) for folder in folders]
    empty = [folder.name for folder, (images, _) in zip(folders, counts, strict=True) if not images]
    held = [_count(folder) for folder in class_folders(val)] if val else []
    problem = "has no class folders" if not folders else f"class folder '{empty[0]}' is empty" if empty else ""
    return DatasetFacts(
        "imagefolder",
        str(root),
        root.name,
        len(folders),
        sum(images for images, _ in counts),
        sum(images for images, _ in held),
        _first_size(folders),
        sum(size for _, size in counts + held),
        problem,
    )


def _count(folder: Path) -> tuple[int, int]:
    """Number and bytes of the images of one class folder."""
    with os.scandir(folder) as entries:
        sizes = [entry.stat().st_size for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
    return len(sizes), sum(sizes)


def _first_size(folders: Sequence[Path]) -> tuple[int, int] | None:
    for folder in folders[:1]:
        for file in sorted(folder.iterdir()):
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
                try:
                    with Image.open(file) as image:
                        return image.size
                except NO_IMAGE:
                    return None
    return None


def _parquet_facts(root: Path) -> DatasetFacts:
    import pyarrow
    import pyarrow.parquet

    shards = sorted(root.rglob("*.parquet"))
    rows: list[tuple[Path, int]] = []
    highest = -1
    try:
        for shard in shards:
            columns = pyarrow.parquet.read_schema(shard).names
            label = next((name for name in LABEL_COLUMNS if name in columns), None)
            if label is None:
                return DatasetFacts(
                    "parquet", str(root), root.name, problem=f"{shard.name} has no column {', '.join(LABEL_COLUMNS)}"
                )
            values = pyarrow.parquet.read_table(shard, columns=[label])[label]
            rows.append((shard, len(values)))
            highest = max([highest, *(value for value in values.unique().to_pylist() if isinstance(value, int))])
        classes = len(parquet_class_names(shards[0])) if shards else 0
    except (pyarrow.ArrowException, OSError, UnicodeError) as error:
        return DatasetFacts("parquet", str(root), root.name, problem=f"a shard cannot be read: {error}")
    val = sum(count for shard, count in rows if any(p.startswith(VAL_FOLDERS) for p in shard.relative_to(root).parts))
    return DatasetFacts(
        "parquet",
        str(root),
        root.name,
        classes or highest + 1,
        train_images=sum(count for _, count in rows) - val,
        val_images=val,
        bytes=sum(shard.stat().st_size for shard in shards),
        problem="" if shards else "holds no *.parquet file",
    )


def parquet_class_names(shard: Path) -> tuple[str, ...]:
    """Class names from Hugging Face metadata; empty where there are none. Raises OSError, pyarrow.ArrowException,
    UnicodeError.
    """
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(shard).metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return next(tuple(str(n) for n in features[column]["names"]) for column in LABEL_COLUMNS if column in features)
    except (KeyError, ValueError, TypeError, StopIteration):
        return ()


def parquet_values(table: pyarrow.Table, column: str, shard: Path) -> list[Any]:
    """A column's values. Raises DataError where its texts are none."""
    try:
        values: list[Any] = table[column].to_pylist()
    except UnicodeError as error:
        raise DataError(f"{shard}, column {column}: {error}", "copy or download it again") from None
    return values


def find_datasets(roots: Sequence[Path]) -> list[DatasetFacts]:
    """Every ImageFolder tree, set of class folders and Parquet folder directly under the given roots, or the root
    itself, below which nothing else is looked for where it is a tree.
    """
    found: list[DatasetFacts] = []
    for root in roots:
        if not root.is_dir():
            continue
        if _holds_classes(root):
            found.append(dataset_facts("imagefolder", root))
            continue
        for folder in [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]:
            if _holds_classes(folder):
                found.append(dataset_facts("imagefolder", folder))
            elif any(folder.glob("*.parquet")):
                found.append(dataset_facts("parquet", folder))
    return found


def _holds_classes(folder: Path) -> bool:
    """Whether a folder has class folders in ``train``, or else two or more itself, each of which holds an image."""
    if (folder / "train").is_dir():
        return bool(class_folders(folder / "train"))
    try:
        folders = class_folders(folder)
        return len(folders) > 1 and all(_holds_image(one) for one in folders)
    except (DataError, OSError):
        return False


def _holds_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(entry.name).suffix.lower() in IMAGE_SUFFIXES for entry in entries)
