"""FKD label folders: ours are what SRe2L's training reads, others' are read safely, and nothing else passes."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode, functional

from engine import models
from engine.config import RelabelConfig
from engine.data import normalise
from engine.data.given import decoded
from engine.errors import DataError
from engine.givenset import read_given
from engine.interchange.fkd import FkdLabels, read_batch
from engine.interchange.fkd_writing import batch_of
from engine.mixing import draw_plan, fkd_order
from engine.relabel import teacher_logits

MEAN = STD = (0.5, 0.5, 0.5)
CLASSES, IPC, SIZE, EPOCHS, GROUP = 3, 5, 16, 3, 4
COUNT = CLASSES * IPC
MIXES = ("cutmix", "mixup", "none")


def _images(root: Path) -> Path:
    """Smooth pictures, so that one row of pixels more or less does not make another picture of them."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        for number in range(IPC):
            small = Image.fromarray(random.integers(0, 255, (4, 4, 3), dtype=np.uint8))
            path = root / f"new{label:03d}" / f"class{label:03d}_id{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            small.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., tuple[Path, Path, torch.nn.Module]]:
    """Images and labels of a small teacher, written as an export writes them."""

    def write(mix: str, weights_N: torch.Tensor | None = None) -> tuple[Path, Path, torch.nn.Module]:
        images, labels = _images(tmp_path / "images"), tmp_path / "labels"
        teacher = models.build("convnet3", CLASSES, SIZE, width=8).eval()
        source_NCHW = normalise(decoded(read_given(images), SIZE), MEAN, STD)
        options = RelabelConfig.model_validate({"order": "fkd", "mix": mix, "mix_group": GROUP})
        for epoch in range(EPOCHS):
            plan = draw_plan(COUNT, SIZE, options, 0, epoch)
            logits_NC = teacher_logits(teacher, plan, source_NCHW, slice(0, COUNT), bf16=False).half()
            folder = labels / f"epoch_{epoch}"
            folder.mkdir(parents=True)
            for number, start in enumerate(range(0, COUNT, GROUP)):
                content = batch_of(plan, slice(start, start + GROUP), logits_NC, weights_N)
                torch.save(content, folder / f"batch_{number}.tar")
        return images, labels, teacher

    return write


def _as_sre2l_reads(images: Path, labels: Path, mix: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and soft labels of every step, as SRe2L's training puts them together: ImageFolder, one sampler of seed
    42 for all epochs, crops of the PIL image by their coordinates, then the batch mixed with its own permutation."""
    folder = ImageFolder(str(images))
    sampler = torch.utils.data.RandomSampler(folder, generator=torch.Generator().manual_seed(42))
    steps = []
    for epoch in range(EPOCHS):
        batches = torch.utils.data.BatchSampler(sampler, GROUP, drop_last=False)
        for number, members in enumerate(batches):
            path = labels / f"epoch_{epoch}" / f"batch_{number}.tar"
            coords, flips, partners, lam, box, logits = torch.load(path, weights_only=True)
            views = []
            for at, index in enumerate(members):
                picture, _ = folder[index]
                top, left, height, width = (float(side) * SIZE for side in coords[at])
                view = functional.resized_crop(
                    picture, top, left, height, width, [SIZE, SIZE], InterpolationMode.BILINEAR
                )
                views.append(functional.to_tensor(functional.hflip(view) if bool(flips[at]) else view))
            batch = torch.stack(views).sub(0.5).div(0.5)
            if mix == "cutmix":
                upper, first, lower, last = box
                batch[:, :, upper:lower, first:last] = batch[partners, :, upper:lower, first:last]
            if mix == "mixup":
                batch = lam * batch + (1 - lam) * batch[partners]
            steps.append((batch, logits.float()))
    return steps


@pytest.mark.parametrize("mix", MIXES)
def test_sre2l_training_puts_labels_and_images_together(written: Callable[..., tuple[Path, ...]], mix: str) -> None:
    images, labels, teacher = written(mix)
    assert isinstance(teacher, torch.nn.Module)
    for batch, logits in _as_sre2l_reads(images, labels, mix):
        with torch.no_grad():
            theirs = teacher(batch)
        spread = float(logits.std())
        # PIL rounds a view to whole grey levels; the label of another view would be off by the spread of the labels.
        assert float((theirs - logits).abs().max()) < 0.15 * spread


@pytest.mark.parametrize("mix", MIXES)
def test_labels_written_here_are_read_here(written: Callable[..., tuple[Path, ...]], mix: str) -> None:
    weights_N = torch.rand(COUNT) + 0.1
    images, labels, _ = written(mix, weights_N)
    found = FkdLabels(labels, read_given(images).loader_order(), CLASSES, SIZE, EPOCHS, pytest.fail)
    options = RelabelConfig.model_validate({"order": "fkd", "mix": mix, "mix_group": GROUP})
    for epoch in (0, 2, 1):
        plan, ours = found.plan(epoch), draw_plan(COUNT, SIZE, options, 0, epoch)
        assert (plan.mix, plan.size) == (ours.mix, ours.size)
        for name in ("order_N", "partner_N", "lam_N", "boxes_N4"):
            torch.testing.assert_close(getattr(plan, name), getattr(ours, name))
        assert torch.equal(plan.views.boxes_N4, ours.views.boxes_N4)
        assert torch.equal(plan.views.flips_N, ours.views.flips_N)
        assert found.logits(epoch).shape == (COUNT, CLASSES)


def test_the_order_is_that_of_one_sampler_for_all_epochs() -> None:
    sampler = torch.utils.data.RandomSampler(range(11), generator=torch.Generator().manual_seed(42))
    orders = [torch.tensor(list(sampler)) for _ in range(4)]
    for epoch in (0, 1, 3, 3, 0, 2):
        assert torch.equal(fkd_order(11, epoch), orders[epoch])


def test_images_are_numbered_as_imagefolder_does(tmp_path: Path) -> None:
    """Class by class is not the order of folders whose numbers have no leading zeros."""
    for label in range(12):
        (tmp_path / str(label)).mkdir()
        for number in (2, 10):
            Image.new("RGB", (8, 8), (label, number, 0)).save(tmp_path / str(label) / f"{number}.png")
    given = read_given(tmp_path)
    ours = [image.name for one in given.classes for image in one.images]
    theirs = ["/".join(Path(path).parts[-2:]) for path, _ in ImageFolder(str(tmp_path)).samples]
    assert [ours[at] for at in given.loader_order()] == theirs
    assert theirs[2].startswith("1/")
    assert theirs[4].startswith("10/")


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("executed"),)  # type: ignore[return-value]


def _good() -> list[object]:
    return [
        torch.tensor([[0.0, 0.25, 0.5, 0.5]] * 2), [True, False], torch.tensor([1, 0]), np.float64(0.7),
        [np.int64(1), 2, np.int64(9), 16], torch.zeros(2, 3).half(), torch.tensor([0.5, 1.5]),
    ]  # fmt: skip


def test_numpy_scalars_and_lists_as_authors_leave_them(tmp_path: Path) -> None:
    path = tmp_path / "batch_0.tar"
    torch.save(_good(), path)
    found = read_batch(path)
    assert found.box == (1, 2, 9, 16)
    assert found.lam == pytest.approx(0.7)
    assert found.flips_B.tolist() == [True, False]
    assert found.weights_B is not None


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (5, torch.zeros(2, 0), "logits have the shape"),
        (5, torch.zeros(1).expand(2, 3), "larger than what is stored"),
        (5, torch.full((2, 3), torch.nan).half(), "NaN"),
        (0, torch.zeros(3, 4), "2 logits, but coords"),
        (0, torch.tensor([[0.0, 0.0, 2.0, 1.0]] * 2), "outside"),
        (2, torch.tensor([0, 2]), "partners"),
        (3, 1.5, "λ = 1.5"),
        (4, [5, 0, 1, 1], "the box"),
        (6, torch.zeros(2), "weights"),
        (1, "no", "another structure"),
    ],
)
def test_a_file_of_other_content_is_named(tmp_path: Path, place: int, value: object, said: str) -> None:
    content = _good()
    content[place] = value
    path = tmp_path / "batch_0.tar"
    torch.save(content, path)
    with pytest.raises(DataError, match=said) as refused:
        read_batch(path)
    assert str(path) in refused.value.message


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_label_file_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[object, Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    save([*_good()[:5], _Evil()], tmp_path / "batch_0.tar")
    with pytest.raises(DataError, match=r"refused|cannot be read"):
        read_batch(tmp_path / "batch_0.tar")
    assert not (tmp_path / "executed").exists()


def test_a_folder_that_does_not_fit_the_set_is_refused(written: Callable[..., tuple[Path, ...]]) -> None:
    images, labels, _ = written("cutmix")
    order = read_given(images).loader_order()
    for arguments, said in (
        ((labels, order, CLASSES, SIZE, EPOCHS + 1), "labels of 3 epochs, train.epochs is 4"),
        ((labels, order, CLASSES + 1, SIZE, EPOCHS), "logits of 3 classes, the data set has 4"),
        ((labels, order[:-1], CLASSES, SIZE, EPOCHS), "labels more than the 14 images"),
        ((labels, [*order, COUNT], CLASSES, SIZE, EPOCHS), "no FKD label file"),
        ((labels, order, CLASSES, SIZE // 4, EPOCHS), "images have 4"),
        ((images, order, CLASSES, SIZE, EPOCHS), "no folder epoch_0"),
    ):
        with pytest.raises(DataError, match=said):
            FkdLabels(*arguments, lambda _message: None)  # type: ignore[arg-type]


def test_labels_of_images_of_another_size_are_told(written: Callable[..., tuple[Path, ...]]) -> None:
    images, labels, _ = written("none")
    told: list[str] = []
    FkdLabels(labels, read_given(images).loader_order(), CLASSES, SIZE - 3, EPOCHS, told.append)
    assert told
    assert "another size" in told[0]
