"""Pseudo-labels: a CSV of labels for the training images, found by clustering or by another model.

Columns ``image_path`` and ``pseudo_label_class_index``; of the optional ones ``cluster_id`` and ``true_label_index``
are used. Rows without an image, images without a row, duplicates and labels that number nothing are counted and named;
they end the run unless ``data.on_mismatch = "skip"``.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment

from engine.config import DataConfig
from engine.data.listing import Split
from engine.errors import DataError

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
UNKNOWN = -1
NAMED = 3
#: More are no clusters; the table of clusters and classes would not fit.
MOST_CLUSTERS = 65_536
FAULTS = {
    "rows_without_image": "rows name no training image",
    "images_without_row": "training images have no row",
    "duplicates": "rows repeat an image",
    "not_integer": "rows have a label that is no integer",
    "out_of_range": "rows have a label outside the classes",
    "other_true_label": "rows have a true_label_index that is not the data set's own: its classes are in another order",
}


@dataclass(frozen=True)
class Row:
    """A line of the CSV; ``label`` and ``true`` as they are written."""

    line: int
    image: str
    label: str
    true: str


@dataclass(frozen=True)
class PseudoFacts:
    """What the labels amount to. Rates are shares of the images whose true class is known, None where none is.

    ``noise_rate``: the label (of a cluster, the class it is matched with) is not the true class. ``purity``: the true
    class is the commonest of the label. ``matching`` gives the class id of each cluster, "" for one left over.
    """

    file: str
    rows: int
    images: int
    labels: int
    known: int
    noise_rate: float | None
    purity: float | None
    validation_rows: int
    faults: dict[str, int]
    matching: dict[str, str] = field(default_factory=dict)

    def sentences(self) -> Iterator[str]:
        """For the log."""
        yield f"pseudo-labels: {self.images} images, {self.labels} different labels, from {self.rows} rows"
        if self.noise_rate is not None and self.purity is not None:
            yield (
                f"of {self.known} images whose class is known: noise rate {100 * self.noise_rate:.2f} %, "
                f"purity {100 * self.purity:.2f} %"
            )

    def left_out(self) -> Iterator[str]:
        """What was at fault and left out, for the log."""
        for name, count in self.faults.items():
            if count:
                yield f"pseudo-labels: {count} {FAULTS[name]}; left out as data.on_mismatch = 'skip' says"


@dataclass(frozen=True)
class Relabelled:
    """Training images with their new labels. ``outputs`` is how many there can be: classes, then clusters left over.

    With ``unmatched`` the labels are clusters of which no true class is known, so only the validation images tell.
    """

    train: Split
    facts: PseudoFacts
    outputs: int
    unmatched: bool


def read_rows(path: Path, clusters: bool) -> list[Row]:
    """All lines of the file. Raises DataError for one that is no such CSV."""
    wanted = "cluster_id" if clusters else "pseudo_label_class_index"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = reader.fieldnames or []
            label = "pseudo_label_class_index" if wanted not in columns else wanted
            missing = [name for name in ("image_path", label) if name not in columns]
            if missing:
                raise DataError(
                    f"data.pseudo_labels = '{path}' has no column {' and '.join(missing)}, but "
                    f"{', '.join(name[:40] for name in columns[:8]) or 'no header'}",
                    "needed: image_path and pseudo_label_class_index" + (" or cluster_id" if clusters else ""),
                )
            return [
                Row(reader.line_num, *(str(values.get(name) or "").strip() for name in _names(label)))
                for values in reader
            ]
    except FileNotFoundError:
        raise DataError(f"data.pseudo_labels = '{path}' does not exist", "name an existing CSV file") from None
    except OSError as error:
        raise DataError(f"data.pseudo_labels = '{path}' cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"data.pseudo_labels = '{path}' is no CSV: {error}", "write it as UTF-8, quoted") from None


def _names(label: str) -> tuple[str, ...]:
    return "image_path", label, "true_label_index"


@dataclass
class Matched:
    """Rows that met their images: ``given`` and ``true`` by position in the split; faults as texts, by kind."""

    given: dict[int, int] = field(default_factory=dict)
    true: dict[int, int] = field(default_factory=dict)
    validation: int = 0
    faults: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in FAULTS})


def apply_pseudo_labels(train: Split, val: Split, config: DataConfig, class_ids: Sequence[str]) -> Relabelled:
    """The training images that have a label, with it in place of their own, and what there is to say of the labels.

    Raises DataError for a file that cannot be used, and for faults of its rows unless ``on_mismatch`` says "skip".
    """
    path, clusters, classes = Path(config.pseudo_labels), config.pseudo_ids == "clusters", len(class_ids)
    rows = read_rows(path, clusters)
    matched = match_rows(rows, train, val, config, classes)
    if config.on_mismatch == "error":
        _refuse(path, matched, class_ids)
    if not matched.given:
        raise DataError(
            f"data.pseudo_labels = '{path}' labels no training image", "image_path must be relative to data.path"
        )
    order = sorted(matched.given)
    labels_N = np.array([matched.given[at] for at in order], dtype=np.int64)
    true_N = np.array([matched.true[at] for at in order], dtype=np.int64)
    known_N = true_N != UNKNOWN
    unmatched = clusters and not bool(known_N.any())
    ids, dense_N = np.unique(labels_N, return_inverse=True)
    if len(ids) > MOST_CLUSTERS:
        raise DataError(
            f"data.pseudo_labels = '{path}' has {len(ids)} different labels, at most {MOST_CLUSTERS} are allowed",
            "take the column of clusters, not of images",
        )
    outputs, matching = classes, {}
    if unmatched:
        labels_N, outputs = dense_N, len(ids)
    elif clusters:
        chosen_K = match_clusters(contingency(dense_N[known_N], true_N[known_N], len(ids), classes))
        labels_N, outputs = chosen_K[dense_N], max(classes, int(chosen_K.max()) + 1)
        names = [class_ids[label] if label < classes else "" for label in chosen_K.tolist()]
        matching = dict(zip(map(str, ids.tolist()), names, strict=True))
    told = bool(known_N.any())
    facts = PseudoFacts(
        file=str(path),
        rows=len(rows),
        images=len(order),
        labels=len(ids),
        known=int(known_N.sum()),
        noise_rate=float((labels_N != true_N)[known_N].mean()) if told else None,
        purity=purity(contingency(dense_N[known_N], true_N[known_N], len(ids), classes)) if told else None,
        validation_rows=matched.validation,
        faults={name: len(texts) for name, texts in matched.faults.items()},
        matching=matching,
    )
    taken = train.take(order)
    split = Split(taken.items, taken.names, taken.marks, torch.from_numpy(labels_N.astype(np.int64)), taken.paths)
    return Relabelled(split, facts, outputs, unmatched)


def match_rows(rows: Sequence[Row], train: Split, val: Split, config: DataConfig, classes: int) -> Matched:
    """Bring rows and images together. Of several rows of one image the first counts."""
    found, touched = Matched(), set()
    places, held = _places(train, config), _places(val, config)
    for row in rows:
        at = _position(row, places, config)
        if at is None:
            if _position(row, held, config) is None:
                found.faults["rows_without_image"].append(f"line {row.line}: {row.image[:80]!r}")
            else:
                found.validation += 1
            continue
        said = f"line {row.line}: {row.label[:40]!r} of {row.image[:80]!r}"
        if at in touched:
            found.faults["duplicates"].append(said)
            continue
        touched.add(at)
        if not INTEGER.fullmatch(row.label):
            found.faults["not_integer"].append(said)
            continue
        label = int(row.label)
        if label < 0 or (label >= classes and config.pseudo_ids == "classes"):
            found.faults["out_of_range"].append(said)
            continue
        own, told = int(train.labels_N[at]), int(row.true) if INTEGER.fullmatch(row.true) else UNKNOWN
        if own == UNKNOWN and 0 <= told < classes:
            own = told
        elif UNKNOWN not in (own, told) and own != told:
            found.faults["other_true_label"].append(f"line {row.line}: {told}, the data set's is {own}")
        found.given[at], found.true[at] = label, own
    found.faults["images_without_row"] = [train.names[at] for at in range(len(train.items)) if at not in touched]
    return found


def _places(split: Split, config: DataConfig) -> dict[str, int]:
    """Position of an image by every name it may go by; -1 where several go by the same.

    Names are the path, the path below the split's folder and, where no folders tell images apart, the file's name.
    """
    places: dict[str, int] = {}
    for at, name in enumerate(split.names):
        path = PurePosixPath(split.paths[at] if split.paths else name)
        own = {name, str(path), str(PurePosixPath(*path.parts[1:]))}
        if config.dataset != "imagefolder":
            own.add(path.name)
        for one in own - {"."}:
            places[one] = at if places.get(one, at) == at else -1
    return places


def _position(row: Row, places: dict[str, int], config: DataConfig) -> int | None:
    """The image of a row: by its path from the data set's folder, from its parent or below the split's.

    Without class folders also by the file's name.
    """
    path = PurePosixPath(row.image.replace("\\", "/"))
    if path.is_absolute() and config.path and path.is_relative_to(config.path):
        path = path.relative_to(config.path)
    names = [str(path)]
    if path.parts[:1] == (Path(config.path).name,):
        names.append(str(PurePosixPath(*path.parts[1:])))
    if config.dataset != "imagefolder":
        names.append(path.name)
    for name in names:
        at = places.get(name, -1)
        if row.image and at >= 0:
            return at
    return None


def _refuse(path: Path, matched: Matched, class_ids: Sequence[str]) -> None:
    """Raises DataError that counts every kind of fault and names the first of each."""
    kinds = [(FAULTS[name], texts) for name, texts in matched.faults.items() if texts]
    if not kinds:
        return
    lines = [
        f"  {len(texts)} {what}: {', '.join(texts[:NAMED])}{', …' if len(texts) > NAMED else ''}"
        for what, texts in kinds
    ]
    raise DataError(
        "\n".join([f"data.pseudo_labels = '{path}' does not fit the data set:", *lines]),
        f"labels are whole numbers from 0 to {len(class_ids) - 1} (or clusters: data.pseudo_ids = 'clusters'); repair "
        "the file, or set data.on_mismatch = 'skip' to leave these out",
    )


def contingency(labels_N: npt.NDArray[Any], true_N: npt.NDArray[Any], labels: int, classes: int) -> npt.NDArray[Any]:
    """How many images of each label (rows) are of each class (columns); int64 (K, C)."""
    table = np.zeros((labels, classes), dtype=np.int64)
    np.add.at(table, (labels_N, true_N), 1)
    return table


def purity(table_KC: npt.NDArray[Any]) -> float:
    """Share of the images whose class is the commonest of their label."""
    return float(table_KC.max(axis=1).sum() / table_KC.sum())


def match_clusters(table_KC: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The class of each cluster (K,) such that as many images as possible agree, no class twice.

    Where there are more clusters than classes, those left over get the numbers C, C + 1, …, which are never right.
    """
    clusters, classes = table_KC.shape
    rows, columns = linear_sum_assignment(-table_KC)
    chosen_K = np.full(clusters, -1, dtype=np.int64)
    chosen_K[rows] = columns
    left = chosen_K < 0
    chosen_K[left] = classes + np.arange(int(left.sum()))
    return chosen_K
