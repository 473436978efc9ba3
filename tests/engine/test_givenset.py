"""Sets of others: every layout gives the same images in the same order, and a doubtful order of classes is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from engine.data.given import load_given
from engine.errors import DataError
from engine.givenset import read_given
from engine.interchange.classes import order_in_doubt

IDS = ("n01", "n02", "n03")
IPC = 2


def _picture(label: int, number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (label, number, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _layout(root: Path, form: str) -> Path:
    """The same images in a layout: ``{label}`` and ``{number}`` stand in its file names."""
    for label in range(3):
        for number in range(IPC):
            path = root / form.format(label=label, number=number, id=IDS[label])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_picture(label, number))
    return root


@pytest.mark.parametrize(
    "form",
    [
        "new{label:03d}/class{label:03d}_id{number:03d}.png",
        "{label:05d}/class{label:05d}_id{number:05d}.png",
        "{label:05d}/{number}.png",
        "{id}/anything{number}.png",
        "class{label:03d}_id{number:03d}.png",
        "images/new{label:03d}/class{label:03d}_id{number:03d}.png",
    ],
)
def test_every_layout_gives_the_same_set(tmp_path: Path, form: str) -> None:
    images_NCHW = load_given(str(_layout(tmp_path / "set", form)), IDS, IPC, 8)
    assert images_NCHW[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert images_NCHW[:, 1, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert read_given(tmp_path / "set").bytes == sum(len(_picture(label, n)) for label in range(3) for n in range(IPC))


def test_parquet_as_others_write_it(tmp_path: Path) -> None:
    order = [(2, 0), (0, 0), (1, 0), (0, 1), (1, 1), (2, 1)]
    columns = {"image": [_picture(*one) for one in order], "class_id": [label for label, _ in order]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    images_NCHW = load_given(str(tmp_path), IDS, IPC, 8)
    assert images_NCHW[:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_numbers_beyond_their_zeros_keep_their_order(tmp_path: Path) -> None:
    """Of 1,001 classes ImageFolder would take new1000 for the class after new100."""
    for number in (99, 100, 101, 1000):
        (tmp_path / f"new{number:03d}").mkdir()
        (tmp_path / f"new{number:03d}" / "0.png").write_bytes(_picture(0, 0))
    assert [one.number for one in read_given(tmp_path).classes] == [99, 100, 101, 1000]


def test_a_doubtful_order_of_classes_is_refused(tmp_path: Path) -> None:
    _layout(tmp_path / "names", "new{label:03d}/class{number:03d}_id000.png")
    with pytest.raises(DataError, match="another class than its folder"):
        load_given(str(tmp_path / "names"), IDS, 1, 8)
    gap = _layout(tmp_path / "gap", "new{label:03d}/{number}.png")
    (gap / "new002").rename(gap / "new007")
    with pytest.raises(DataError, match="class 2 is not among them"):
        load_given(str(gap), IDS, IPC, 8)
    told = _layout(tmp_path / "told", "new{label:03d}/{number}.png")
    (told / "dataset.json").write_text(json.dumps({"class_ids": ["n03", "n02", "n01"]}))
    with pytest.raises(DataError, match="class 0 is 'n03', in the data set it is 'n01'"):
        load_given(str(told), IDS, IPC, 8)
    uneven = _layout(tmp_path / "uneven", "new{label:03d}/{number}.png")
    (uneven / "new001" / "1.png").unlink()
    with pytest.raises(DataError, match="class 'new001' has 1 images, 'new000' has 2"):
        read_given(uneven).ipc()
    flat = _layout(tmp_path / "flat", "class{label}_id{number}.png")
    (flat / "stray.png").write_bytes(_picture(0, 0))
    with pytest.raises(DataError, match="does not say its class"):
        read_given(flat)


@pytest.mark.parametrize(("shift", "doubtful"), [(0, False), (1, True)])
def test_the_teacher_tells_classes_that_are_filed_wrongly(shift: int, doubtful: bool) -> None:
    labels_N = torch.arange(6) % 3
    votes_NC = torch.full((6, 3), 0.2, dtype=torch.float64)
    votes_NC[torch.arange(6), (labels_N + shift) % 3] = 0.6
    said = order_in_doubt(votes_NC, labels_N, IDS)
    assert bool(said) == doubtful
    assert not doubtful or "filed as 'n01' look to the teacher like 'n02'" in said
