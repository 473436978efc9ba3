"""A folder of real images as a configuration's data set: what kind it is, and what to assume of the rest."""

from __future__ import annotations

import json
from pathlib import Path

from engine import config
from engine.catalog import class_folders, dataset_facts
from engine.errors import DataError

#: Without a preset images are processed at their own size, but no larger than this.
MOST_PIXELS = 64
LEAST_PIXELS = 16
CIFAR_NAMES = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}


def data_assignments(root: Path) -> list[str]:
    """The options that name a data set. Raises DataError where the folder holds none."""
    root = root.expanduser().absolute()
    return [f'data.dataset="{_kind(root)}"', f"data.path={json.dumps(str(root), ensure_ascii=False)}"]


def _kind(root: Path) -> str:
    if not root.is_dir():
        raise DataError(f"--data '{root}' is no folder", "name the folder of the real images")
    for kind, names in CIFAR_NAMES.items():
        if root.name in names or any((root / name).is_dir() for name in names):
            return kind
    if class_folders(root) and not any(root.glob("*.parquet")):
        shards = any(True for folder in class_folders(root) for _ in folder.glob("*.parquet"))
        return "parquet" if shards else "imagefolder"
    if any(root.rglob("*.parquet")):
        return "parquet"
    raise DataError(
        f"--data '{root}' holds no data set", "an ImageFolder tree (train/<class>/, val/<class>/), *.parquet, or CIFAR"
    )


def base_for(root: Path) -> config.RunConfig:
    """A configuration for a data set that no preset is given for: a ConvNet at the images' own size, 16 to 64 px."""
    given = data_assignments(root)
    kind = config.override(config.RunConfig(), given).data.dataset
    size = dataset_facts(kind, root.expanduser()).native_size
    resolution = min(MOST_PIXELS, max(LEAST_PIXELS, min(size))) if size else MOST_PIXELS
    return config.override(config.RunConfig(), [*given, f"data.resolution={resolution}"])
