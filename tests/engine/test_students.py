"""Several students on one set, resumed or not, and the networks they may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from engine import events, models, rundir, students
from engine.config import RunConfig, override
from engine.context import Context
from engine.data.source import ResidentSource
from engine.errors import ConfigError, Stopped
from engine.models import timm_names
from engine.softlabels import SyntheticSet
from engine.train import Place, StudentResult, train_student

ARCHS = ["convnet3", "mobilenet_v3_small"]
SETTINGS = override(
    RunConfig(),
    [
        "data.resolution=8", "teacher.width=4", "relabel.storage=online", "train.labels=hard", "train.epochs=2",
        "train.batch_size=4", "train.eval_every=1", f"train.students={','.join(ARCHS)}",
    ],
)  # fmt: skip
Table = tuple[list[students.Trained], list[events.Event]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks on a busy machine: threads that wait for each other take longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def table() -> Callable[..., Table]:
    pixels = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (8, 3, 8, 8), generator=pixels, dtype=torch.uint8)
    labels_N = torch.arange(8) % 2
    synthetic = SyntheticSet(images_NCHW, labels_N, torch.full((8,), 0.25))
    val = ResidentSource(images_NCHW, labels_N, torch.device("cpu"))

    def make(run: rundir.RunDir, stop_after: int = 10**9) -> Table:
        seen: list[events.Event] = []
        asked = 0

        def interrupted() -> bool:
            nonlocal asked
            asked += 1
            return asked > stop_after

        ctx = Context(SETTINGS, torch.device("cpu"), run, seen.append, interrupted, lambda: False)

        def train(student: torch.nn.Module, place: Place) -> StudentResult:
            mean = std = (0.5, 0.5, 0.5)
            return train_student(ctx, synthetic, student, None, val, mean, std, None, "work", place=place)

        return students.train_all(ctx, 2, train), seen

    return make


def test_every_student_has_a_row_a_file_and_its_name_in_the_events(table: Callable[..., Table]) -> None:
    run = rundir.create(SETTINGS)
    rows, seen = table(run)
    facts = students.facts(rows)
    assert [row["arch"] for row in facts] == ARCHS
    assert facts[0]["parameters"] == sum(one.numel() for one in models.build("convnet3", 2, 8, width=4).parameters())
    assert facts[1]["parameters"] > facts[0]["parameters"]
    files = sorted(file.name for file in run.student.iterdir())
    assert files == ["student-2-mobilenet_v3_small.safetensors", "student.safetensors"]
    metrics = [(one.stage, one.student, one.epoch) for one in seen if isinstance(one, events.Metrics)]
    assert metrics == [("train", ARCHS[0], 1), ("train", ARCHS[0], 2), ("cross", ARCHS[1], 1), ("cross", ARCHS[1], 2)]
    progress = [(one.done, one.total, one.note) for one in seen if isinstance(one, events.Progress)]
    assert progress[-1] == (4, 4, ARCHS[1])


def test_a_table_broken_off_in_its_second_student_ends_with_the_same_bytes(table: Callable[..., Table]) -> None:
    whole, broken = rundir.create(SETTINGS), rundir.create(SETTINGS)
    expected, _ = table(whole)
    with pytest.raises(Stopped):
        table(broken, stop_after=7)
    assert (broken.student / "student.safetensors").is_file(), "the first student had ended"
    rows, _ = table(broken)
    assert [row.result for row in rows] == [row.result for row in expected]
    for file in whole.student.iterdir():
        assert (broken.student / file.name).read_bytes() == file.read_bytes()


def test_a_student_that_cannot_be_built_is_refused_before_any_work() -> None:
    wrong = override(SETTINGS, ["train.students=convnet3,resnet19"])
    with pytest.raises(ConfigError, match="unknown architecture 'resnet19'; did you mean 'resnet18'"):
        students.check(wrong, 2)
    assert students.check(SETTINGS, 2) > 4 * students.parameters_of(models.build("mobilenet_v3_small", 2, 32))


# --- networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "efficientnet_b0", "swin_t", "vit_tiny", "vit_small", "resnet10t"]
)
def test_families_of_students_take_small_images(arch: str) -> None:
    settings = override(RunConfig(), ["data.resolution=32", f"train.arch={arch}"])
    network = models.build_student(settings, 3).eval()
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_a_transformer_is_drawn_from_the_seed_as_its_library_draws_it() -> None:
    settings = override(RunConfig(), ["data.resolution=32", "train.arch=vit_tiny"])
    first, again, other = (
        models.build_student(override(settings, [f"seed={seed}"]), 3).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = "blocks.0.attn.qkv.weight"
    assert not torch.equal(first[drawn], other[drawn])
    assert float(first[drawn].std()) == pytest.approx(0.02, rel=0.05), "truncated normal, not Kaiming"


@pytest.mark.parametrize(("resolution", "side"), [(224, 16), (128, 8), (64, 4), (32, 2), (16, 2), (27, 1), (448, 32)])
def test_patches_divide_the_image_into_fourteen_or_more(resolution: int, side: int) -> None:
    assert timm_names.patch_size(resolution) == side


def test_without_timm_its_names_are_refused_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_names, "_timm", lambda: None)
    with pytest.raises(ConfigError) as caught:
        models.build("vit_tiny", 2, 32)
    assert "pip install 'wmdd-tui[timm]'" in str(caught.value)
    with pytest.raises(ConfigError, match="unknown architecture 'deit_tiny"):
        models.build("deit_tiny_patch16_224", 2, 32)


def test_a_timm_network_that_cannot_take_the_images_says_so() -> None:
    with pytest.raises(ConfigError, match=r"data\.resolution = 8 is not possible with vit_tiny_patch16_224"):
        models.build_student(override(SETTINGS, ["train.students=vit_tiny_patch16_224"]), 2)
