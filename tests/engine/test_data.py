"""Data sets: every kind decodes to the same form; every fault is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from engine.catalog import dataset_facts
from engine.config import DataConfig
from engine.data import Dataset, load_dataset, normalise
from engine.data.decode import decode
from engine.data.prepare import prepare
from engine.errors import DataError

CPU = torch.device("cpu")


def load(**values: object) -> Dataset:
    return load_dataset(DataConfig.model_validate(values), 0, CPU)


def test_digits_split_is_fixed_by_the_seed() -> None:
    first, again = load(), load()
    assert first.fingerprint == again.fingerprint
    assert len(first.train) + len(first.val) == 1797
    assert torch.equal(first.val.labels_N, again.val.labels_N)
    other = load_dataset(DataConfig(), 1, CPU)
    assert other.fingerprint != first.fingerprint
    batch = first.train.batch(torch.arange(5))
    assert batch.shape == (5, 3, 16, 16)
    assert batch.dtype == torch.uint8


def test_colours_as_they_are() -> None:
    """What teachers and students see of the pixels: 0 to 1; nothing that was found with other colours is reused."""
    plain, usual = load(normalise="none"), load()
    assert plain.fingerprint != usual.fingerprint
    assert usual.mean == (0.305, 0.305, 0.305)
    images_NCHW = plain.train.batch(torch.arange(3))
    torch.testing.assert_close(normalise(images_NCHW, plain.mean, plain.std), images_NCHW / 255)


def test_the_published_central_crop(tmp_path: Path) -> None:
    """A share of 0.875 is torchvision's Resize(256) and CenterCrop(224), but for rounding."""
    ramp = np.linspace(0, 255, 300)[None, :, None].repeat(256, 0).repeat(3, 2).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    published = v2.Compose([v2.PILToTensor(), v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    found = decode(tmp_path / "x.png", 224, "x", 0.875)
    assert (found.int() - published(Image.open(tmp_path / "x.png")).int()).abs().max() <= 1
    assert decode(tmp_path / "x.png", 224, "x")[0, 0, 0] < found[0, 0, 0], "the whole square begins further out"


def test_the_crop_reaches_both_splits_and_the_fingerprint(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            ramp = np.linspace(0, 255, 64)[None, :, None].repeat(64, 0).repeat(3, 2).astype(np.uint8)
            Image.fromarray(ramp).save(tmp_path / split / label / "x.png")
    whole, cut = (load(dataset="imagefolder", path=str(tmp_path), resolution=32, crop=crop) for crop in (1.0, 0.5))
    assert whole.fingerprint != cut.fingerprint
    for source in ("train", "val"):
        edges = [getattr(one, source).batch(torch.arange(2))[:, 0, 0, 0].tolist() for one in (whole, cut)]
        assert max(edges[0]) < 10 < 60 < min(edges[1])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "1", "LA"])
def test_modes_decode_to_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new("RGB", (20, 30), (255, 255, 255)).convert(mode).save(file)
    found = decode(file, 8, "x")
    assert found.shape == (3, 8, 8)
    assert int(found.min()) > 240


def test_exif_rotation(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), "black")
    image.paste((255, 0, 0), (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90° clockwise: the top becomes the right
    image.save(tmp_path / "x.png", exif=exif)
    found = decode(tmp_path / "x.png", 16, "x")
    assert int(found[0, 8, 12]) == 255
    assert int(found[0, 8, 3]) == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for label in ("n01440764", "other"):
        for split, count in (("train", 6), ("val", 2)):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 255, (24, 31, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.{'webp' if number else 'JPEG'}")
    return tmp_path


def test_streamed_equals_resident(tree: Path) -> None:
    resident = load(dataset="imagefolder", path=str(tree), storage="device")
    streamed = load(dataset="imagefolder", path=str(tree), storage="stream")
    lists = [torch.tensor([3, 1]), torch.tensor([0]), torch.tensor([11, 2]), torch.tensor([5])]
    for one, other in zip(resident.train.batches(lists), streamed.train.batches(lists), strict=True):
        assert torch.equal(one, other)
    assert resident.class_names == ("tench", "other")
    assert (len(resident.train), len(resident.val)) == (12, 4)


def test_max_per_class_and_own_split(tree: Path) -> None:
    found = load(dataset="imagefolder", path=str(tree / "train"), max_per_class=2, val_fraction=0.5)
    assert torch.bincount(found.train.labels_N).tolist() == [2, 2]
    assert torch.bincount(found.val.labels_N).tolist() == [3, 3]


def test_a_corrupt_streamed_image_is_named_on_first_read(tree: Path) -> None:
    (tree / "train" / "other" / "2.webp").write_bytes(b"not an image")
    found = load(dataset="imagefolder", path=str(tree), storage="stream")
    with pytest.raises(DataError, match=r"2\.webp"):
        list(found.train.batches([torch.arange(12)]))


def test_a_corrupt_streamed_image_can_be_stood_in_for(tree: Path) -> None:
    (tree / "train" / "other" / "2.webp").write_bytes(b"not an image")
    said: list[str] = []
    settings = DataConfig.model_validate(
        {"dataset": "imagefolder", "path": str(tree), "storage": "stream", "on_corrupt": "skip"}
    )
    found = load_dataset(settings, 0, CPU, warn=said.append)
    names = found.train.batch(torch.arange(12))
    assert torch.equal(names[8], names[9]), "the next image of the class, and the same one every time"
    assert torch.equal(found.train.batch(torch.tensor([8]))[0], names[9])
    assert len(said) == 1
    assert "2.webp" in said[0]


def test_a_class_without_any_readable_image_is_an_error_even_so(tree: Path) -> None:
    for file in (tree / "train" / "other").iterdir():
        file.write_bytes(b"not an image")
    found = load(dataset="imagefolder", path=str(tree), storage="stream", on_corrupt="skip")
    with pytest.raises(DataError, match="cannot be decoded"):
        found.train.batch(torch.tensor([7]))


def test_splits_must_have_the_same_classes(tree: Path) -> None:
    (tree / "val" / "extra").mkdir()
    with pytest.raises(DataError, match="extra"):
        load(dataset="imagefolder", path=str(tree))


def test_numeric_class_folders_sort_as_numbers(tmp_path: Path) -> None:
    for label in ("10", "9", "1000"):
        (tmp_path / label).mkdir()
        for number in range(2):
            Image.new("RGB", (8, 8)).save(tmp_path / label / f"{number}.png")
    assert load(dataset="imagefolder", path=str(tmp_path), resolution=8).class_ids == ("9", "10", "1000")


@pytest.mark.parametrize("text", ["qqqq", "wwww"], ids=["name of a column", "path of an image"])
def test_a_parquet_shard_whose_texts_are_none_is_refused(tmp_path: Path, text: str) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "x.png")
    rows = {"image": [{"bytes": (tmp_path / "x.png").read_bytes()}], "label": [0], "path": ["wwww"], "qqqq": [1]}
    file = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table(rows), file, store_schema=False, write_statistics=False)
    file.write_bytes(file.read_bytes().replace(text.encode(), b"\x80" + text[1:].encode()))
    with pytest.raises(DataError, match=r"train\.parquet"):
        load(dataset="parquet", path=str(tmp_path))
    assert ("cannot be read" in dataset_facts("parquet", tmp_path).problem) == (text == "qqqq")


def test_parquet(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), (10, 200, 30)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    rows = {"image": [{"bytes": content, "path": "x"}] * 8, "label": [0, 1] * 4}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "train-00000.parquet")
    found = load(dataset="parquet", path=str(tmp_path))
    assert len(found.train) + len(found.val) == 8
    facts = dataset_facts("parquet", tmp_path)
    assert (facts.classes, facts.train_images, facts.problem) == (2, 8, "")
    assert found.train.batch(torch.tensor([0]))[0, :, 8, 8].tolist() == [10, 200, 30]


def _cifar_batches(folder: Path, content: object) -> Path:
    target = folder / "cifar-10-batches-py"
    target.mkdir()
    for name in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"):
        (target / name).write_bytes(pickle.dumps(content))
    return folder


def test_cifar_pickle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 3072), dtype=np.uint8)
    _cifar_batches(tmp_path, {b"data": pixels, b"labels": [i % 10 for i in range(20)]})
    found = load(dataset="cifar10", path=str(tmp_path), resolution=32)
    assert (len(found.train), len(found.val)) == (100, 20)
    assert torch.equal(found.val.batch(torch.tensor([0]))[0].flatten(), torch.from_numpy(pixels[0]))


def test_cifar_binary(tmp_path: Path) -> None:
    target = tmp_path / "cifar-10-batches-bin"
    target.mkdir()
    record = np.random.default_rng(0).integers(0, 255, (10, 3073), dtype=np.uint8)
    record[:, 0] = np.arange(10)
    for name in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch"):
        (target / f"{name}.bin").write_bytes(record.tobytes())
    found = load(dataset="cifar10", path=str(tmp_path), resolution=32)
    assert torch.equal(found.val.batch(torch.tensor([4]))[0].flatten(), torch.from_numpy(record[4, 1:]))


def test_a_cifar_pickle_of_other_numbers_is_refused(tmp_path: Path) -> None:
    _cifar_batches(tmp_path, {b"data": np.full((20, 3072), np.nan), b"labels": [0] * 20})
    with pytest.raises(DataError, match="float64, not bytes"):
        load(dataset="cifar10", path=str(tmp_path), resolution=32)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1/0",))


def test_code_in_a_cifar_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="refused"):
        load(dataset="cifar10", path=str(_cifar_batches(tmp_path, Evil())), resolution=32)


def test_prepare_tiny_imagenet(tmp_path: Path) -> None:
    source = tmp_path / "tiny"
    for place in ("train/n1/images/n1_0.JPEG", "train/n2/images/n2_0.JPEG", "val/images/v0.JPEG", "val/images/v1.JPEG"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(source / place)
    (source / "val" / "val_annotations.txt").write_text("v0.JPEG\tn2\t0\t0\nv1.JPEG\tn1\t0\t0\n")
    facts = prepare("tiny-imagenet", source, tmp_path / "out", lambda _done, _total: None)
    assert (facts.classes, facts.train_images, facts.val_images, facts.native_size) == (2, 2, 2, (64, 64))
    assert (tmp_path / "out/val/n2/v0.JPEG").samefile(source / "val/images/v0.JPEG")
