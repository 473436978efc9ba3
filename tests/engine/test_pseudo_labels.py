"""Pseudo-labels from a CSV: what matches, what is counted, named and refused, and what the labels are worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from engine.check import examine
from engine.config import DataConfig, RunConfig, override
from engine.data import Dataset, load_dataset
from engine.data.pseudo import match_clusters
from engine.errors import DataError
from engine.interchange.classes import cluster_accuracy

CPU = torch.device("cpu")
CLASSES, IMAGES = ("ant", "bee", "cat"), 4
Load = Callable[..., Dataset]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Three classes of four training and one validation image, each of one colour, and a CSV of the given lines."""
    for label, name in enumerate(CLASSES):
        for split, count in (("train", IMAGES), ("val", 1)):
            (tmp_path / "tree" / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (8, 8), (50 * label, 10 * number, 0))
                picture.save(tmp_path / "tree" / split / name / f"{number}.png")

    def load_with(lines: list[str], header: str = "image_path,pseudo_label_class_index", **options: str) -> Dataset:
        file = tmp_path / "labels.csv"
        file.write_text("\n".join([header, *lines, ""]))
        values = {"dataset": "imagefolder", "path": str(tmp_path / "tree"), "resolution": 8, **options}
        return load_dataset(DataConfig.model_validate({**values, "pseudo_labels": str(file)}), 0, CPU)

    return load_with


def _rows(labels: dict[tuple[int, int], int] | None = None, form: str = "train/{}/{}.png,{}") -> list[str]:
    """One row an image, with the class as its label unless ``labels`` says otherwise."""
    given = labels or {}
    return [
        form.format(name, number, given.get((label, number), label))
        for label, name in enumerate(CLASSES)
        for number in range(IMAGES)
    ]


@pytest.mark.parametrize(
    "form", ["train/{}/{}.png,{}", "./train/{}/{}.png,{}", "{}/{}.png,{}", '"train\\{}\\{}.png","{}"']
)
def test_labels_of_the_file_take_the_place_of_the_folders(load: Load, form: str) -> None:
    found = load(_rows({(0, 1): 2, (2, 3): 0}, form))
    images_NCHW = found.train.batch(torch.arange(len(found.train)))
    for image, label in zip(images_NCHW, found.train.labels_N.tolist(), strict=True):
        own, number = int(image[0, 0, 0]) // 50, int(image[1, 0, 0]) // 10
        assert label == {(0, 1): 2, (2, 3): 0}.get((own, number), own)
    assert found.pseudo is not None
    assert found.pseudo.noise_rate == pytest.approx(2 / 12)
    assert found.pseudo.purity == pytest.approx(10 / 12)
    assert found.val.labels_N.tolist() == [0, 1, 2]
    assert found.fingerprint != load(_rows()).fingerprint


FAULTY = [
    "train/ant/0.png,0",
    "train/ant/0.png,1",
    "train/ant/1.png,3",
    "train/ant/2.png,-1",
    "train/ant/3.png,1.5",
    "train/bee/9.png,1",
    "val/bee/0.png,1",
    *[line for line in _rows() if "ant" not in line and "cat/3" not in line],
]


def test_everything_that_does_not_match_is_counted_and_named(load: Load) -> None:
    with pytest.raises(DataError) as refused:
        load(FAULTY)
    said = refused.value.message
    for count, what, first in (
        (1, "rows name no training image", "train/bee/9.png"),
        (1, "training images have no row", "train/cat/3.png"),
        (1, "rows repeat an image", "line 3"),
        (1, "label that is no integer", "'1.5'"),
        (2, "outside the classes", "line 4: '3'"),
    ):
        line = next(line for line in said.splitlines() if what in line)
        assert line.strip().startswith(f"{count} ")
        assert first in line
    assert "data.on_mismatch" in refused.value.remedy


def test_what_does_not_match_is_left_out_when_told(load: Load) -> None:
    found = load(FAULTY, on_mismatch="skip")
    assert torch.bincount(found.train.labels_N).tolist() == [1, 4, 3]
    assert found.pseudo is not None
    assert found.pseudo.validation_rows == 1
    assert found.pseudo.faults["out_of_range"] == 2
    assert any("2 rows have a label outside" in sentence for sentence in found.pseudo.left_out())


def test_a_class_order_of_the_file_that_is_not_the_data_sets_is_refused(load: Load) -> None:
    header = "image_path,pseudo_label_class_index,true_label_index"
    with pytest.raises(DataError, match="classes are in another order"):
        load([f"{line},{2 - int(line[-1])}" for line in _rows()], header)


def test_clusters_are_matched_with_classes(load: Load) -> None:
    """Clusters 7, 3, 5 are the classes but for two images; 9 is one too many."""
    cluster = {0: 7, 1: 3, 2: 5}
    labels = {(label, number): cluster[label] for label in range(3) for number in range(IMAGES)}
    labels |= {(0, 0): 9, (1, 1): 7}
    found = load(_rows(labels), "image_path,cluster_id", pseudo_ids="clusters")
    assert found.pseudo is not None
    assert found.pseudo.matching == {"3": "bee", "5": "cat", "7": "ant", "9": ""}
    assert found.outputs == 4
    assert found.pseudo.noise_rate == pytest.approx(2 / 12)
    assert found.pseudo.purity == pytest.approx(11 / 12)
    assert sorted(found.train.labels_N.tolist()) == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]


def test_images_without_class_folders(load: Load, tmp_path: Path) -> None:
    """Training images of nobody knows which class: clusters stay clusters until the validation images tell."""
    train = tmp_path / "tree" / "train"
    for label, name in enumerate(CLASSES):
        for file in sorted((train / name).iterdir()):
            file.rename(train / f"{label}{file.name}")
        (train / name).rmdir()
    lines = [f"{label}{number}.png,{label + 10}" for label in range(3) for number in range(IMAGES)]
    found = load(lines, pseudo_ids="clusters")
    assert found.unmatched
    assert found.outputs == 3
    assert found.pseudo is not None
    assert found.pseudo.purity is None
    told = load(
        [f"{line},{line[0]}" for line in lines], "image_path,cluster_id,true_label_index", pseudo_ids="clusters"
    )
    assert not told.unmatched
    assert told.pseudo is not None
    assert told.pseudo.purity == 1.0


def test_rows_of_parquet_go_by_the_files_they_came_from(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    picture = (tmp_path / "x.png").read_bytes()
    for split, count in (("train", 4), ("val", 2)):
        images = [{"bytes": picture, "path": f"{split}_{row}.JPEG"} for row in range(count)]
        table = pyarrow.table({"image": images, "label": [row % 2 for row in range(count)]})
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    file = tmp_path / "labels.csv"
    file.write_text(
        "image_path,pseudo_label_class_index\n" + "".join(f"n0/train_{r}.JPEG,{r // 2}\n" for r in range(4))
    )
    found = load_dataset(
        DataConfig.model_validate(
            {"dataset": "parquet", "path": str(tmp_path), "resolution": 8, "pseudo_labels": str(file)}
        ),
        0,
        CPU,
    )
    assert found.train.labels_N.tolist() == [0, 0, 1, 1]


def test_config_check_says_what_does_not_match(load: Load, tmp_path: Path) -> None:
    """Before any run is made, and also for images without class folders, which no catalogue can count."""
    load(FAULTY, on_mismatch="skip")
    values = [
        "data.dataset=imagefolder", f'data.path="{tmp_path / "tree"}"',
        f'data.pseudo_labels="{tmp_path / "labels.csv"}"', "train.images=real", "train.labels=hard", "teacher.width=8",
    ]  # fmt: skip
    with pytest.raises(DataError, match="1 rows name no training image"):
        examine(override(RunConfig(), values))
    assert examine(override(RunConfig(), [*values, "data.on_mismatch=skip"]))["dataset"]["train_images"] == 8


def test_config_check_counts_a_given_set(load: Load, tmp_path: Path) -> None:
    load(_rows())
    values = [
        "data.dataset=imagefolder", f'data.path="{tmp_path / "tree"}"', "recover.objective=given", "teacher.width=8",
        f'recover.path="{tmp_path / "tree" / "train"}"',
    ]  # fmt: skip
    with pytest.raises(DataError, match="holds 4 images of each of 3 classes; ipc is 10"):
        examine(override(RunConfig(), values))
    assert examine(override(RunConfig(), [*values, "ipc=4"]))["dataset"]["classes"] == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no column"),
        (b"image_path,label\nx,1\n", "no column pseudo_label_class_index"),
        (b"image_path,pseudo_label_class_index\n\xff\xfe,1\n", "no CSV"),
        (b'image_path,pseudo_label_class_index\n"train/ant/0.png,0\n', "no CSV"),
        (b"image_path,pseudo_label_class_index\nelsewhere.png,0\n", "labels no training image"),
    ],
)
def test_a_file_that_is_no_such_csv_is_refused(load: Load, tmp_path: Path, text: bytes, said: str) -> None:
    load(_rows())
    (tmp_path / "labels.csv").write_bytes(text)
    config = {"dataset": "imagefolder", "path": str(tmp_path / "tree"), "on_mismatch": "skip"}
    with pytest.raises(DataError, match=said):
        load_dataset(DataConfig.model_validate({**config, "pseudo_labels": str(tmp_path / "labels.csv")}), 0, CPU)


def test_optimal_assignment_beats_the_commonest_class() -> None:
    """Both clusters have most of class 0; one of them must be the other class."""
    assert match_clusters(np.array([[9, 8], [7, 0]])).tolist() == [1, 0]
    logits_NK = torch.eye(2)[[0] * 17 + [1] * 7]
    top1, top5 = cluster_accuracy(logits_NK, torch.tensor([0] * 9 + [1] * 8 + [0] * 7), 2)
    assert top1 == pytest.approx(100 * 15 / 24)
    assert top5 == 100.0
