"""bf16 where the device has instructions for it, in every stage alike; fp32 where it is asked for or pays better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine import devices, events, models, rundir, statistics
from engine.artifacts import Cache
from engine.chunks import plan_chunks
from engine.config import DataConfig, RunConfig, override
from engine.context import Context
from engine.data import load_dataset
from engine.groundwork import real_statistics
from engine.losses import Targets
from engine.outcome import Outcome
from engine.pipeline import settle_precision
from engine.recipe import make_recipe
from engine.relabel import relabel
from engine.softlabels import SyntheticSet
from engine.squeeze import squeeze
from engine.train import train_student

CPU = torch.device("cpu")
INTEL = "processor\t: 0\nflags\t\t: fpu avx512f amx_bf16 amx_tile\n"
OLDER = "processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni\n"


def told(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processor be another one."""
    path = folder / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(devices, "CPU_FACTS", path)
    devices._multiplies_bf16.cache_clear()


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (INTEL, True),
        (INTEL.replace("amx_bf16 amx_tile", "avx512_bf16"), True),
        (OLDER, False),
        (OLDER + INTEL, False),  # of two kinds in one machine the first counts
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
    ],
)
def test_a_processor_with_instructions_for_it(
    facts: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(tmp_path, facts, monkeypatch)
    assert devices.computes_in_bf16("auto", "cpu") is expected
    assert devices.computes_in_bf16("auto", "cuda") is True
    for device in ("cpu", "cuda"):
        assert devices.computes_in_bf16("bf16", device) is True
        assert devices.computes_in_bf16("fp32", device) is False


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CPU_FACTS", tmp_path / "nothing")
    assert devices.computes_in_bf16("auto", "cpu") is False


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], True),
        (["run.precision=fp32"], False),
        (["run.precision=fp32", "recover.precision=bf16"], True),
        (["run.precision=bf16", "recover.precision=fp32"], False),
    ],
)
def test_recovery_is_as_the_run_unless_it_is_told(
    changes: list[str], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(tmp_path, INTEL, monkeypatch)
    chunk = plan_chunks(10, 1, 10, "across-classes")[0]
    targets = Targets(chunk.labels_B, chunk.labels_B, torch.ones(1, 10), (), (), None)
    settings = override(RunConfig(), ["recover.iterations=2", *changes])
    assert make_recipe(settings, chunk, load_dataset(DataConfig(), 0, CPU), targets, CPU).bf16 is expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["run.precision=bf16"], True),
        (["run.precision=fp32"], False),
        (["run.precision=fp32", "statistics.precision=bf16"], True),
        (["run.precision=bf16", "statistics.precision=fp32"], False),
    ],
)
def test_statistics_are_as_the_run_unless_they_are_told(
    changes: list[str], expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those in single precision are known as they were before there was a choice."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    settings = override(RunConfig(), ["data.resolution=8", "teacher.width=4", "run.use_cache=false", *changes])
    dataset = load_dataset(settings.data, 0, CPU)
    network = models.build_teacher(settings, 10).eval()
    models.initialise(network, 0, "teacher")
    ctx = Context(settings, CPU, rundir.create(settings), lambda _event: None, lambda: False, lambda: False)
    found, _ = real_statistics(ctx, Cache(), dataset, network, Outcome())
    labels_N, options = dataset.train.labels_N, settings.statistics
    batches = statistics.passes(labels_N, options.variance, options.batch_size, options.loading_batch)
    exact = statistics.collect(network, labels_N, batches, statistics.loader(dataset), 10, CPU, False)
    assert torch.equal(found.features_ND, exact.features_ND) is not expected
    known = {"variance": "exact", "loading_batch": 100, "batch_size": 256}
    assert ctx.statistics_determinants() == known | ({"precision": "bf16"} if expected else {})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_stage_keeps_to_it(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Teacher and student are trained, and the teacher asked for labels; the student's teacher online, too."""
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    settings = override(
        RunConfig(),
        [
            "data.resolution=8", "teacher.width=4", "squeeze.epochs=1", "squeeze.batch_size=512", "train.epochs=1",
            "train.batch_size=10", f"run.precision={precision}",
        ],
    )  # fmt: skip
    dataset = load_dataset(settings.data, 0, CPU)
    ctx = Context(settings, CPU, rundir.create(settings), lambda _event: None, lambda: False, lambda: False)
    seen: dict[str, set[bool]] = {}
    teacher, student = watched("teacher", settings, seen), watched("student", settings, seen)

    squeeze(ctx, dataset, teacher, "work")
    assert seen.pop("teacher") == {precision == "bf16"}

    teacher.eval().requires_grad_(False)
    weights = torch.full((10,), 0.1)
    synthetic = SyntheticSet(dataset.train.batch(torch.arange(10)), torch.arange(10), weights, False)
    relabel(ctx, synthetic, teacher, dataset.mean, dataset.std)
    assert seen.pop("teacher") == {precision == "bf16"}

    train_student(ctx, synthetic, student, teacher, dataset.val, dataset.mean, dataset.std, None, "work")
    assert seen == {"teacher": {precision == "bf16"}, "student": {precision == "bf16"}}


def watched(name: str, settings: RunConfig, seen: dict[str, set[bool]]) -> nn.Module:
    """A network that notes in which precision it is trained, or asked about ten images; it is judged in fp32."""
    network = models.build_teacher(settings, 10)
    models.initialise(network, 0, name)

    def note(module: nn.Module, images: tuple[torch.Tensor, ...]) -> None:
        if module.training or len(images[0]) == 10:
            seen.setdefault(name, set()).add(torch.is_autocast_enabled("cpu"))

    network.register_forward_pre_hook(note)
    return network


def test_statistics_in_bf16_are_near() -> None:
    """Their sums are exact all the same: the order of batches changes nothing."""
    dataset = load_dataset(DataConfig(), 0, CPU)
    network = models.build("convnet3", 10, 8, width=16).eval()

    def surveyed(size: int, **more: Any) -> statistics.Statistics:
        batches = statistics.passes(dataset.train.labels_N, "exact", size, 100)
        load = statistics.loader(dataset)
        return statistics.collect(network, dataset.train.labels_N, batches, load, 10, CPU, False, **more)

    whole, half, other = surveyed(256), surveyed(256, bf16=True), surveyed(100, bf16=True)
    assert not torch.equal(half.features_ND, whole.features_ND)
    for near, exact, again in zip(half.layers, whole.layers, other.layers, strict=True):
        assert float((near.mean_CF - exact.mean_CF).norm() / exact.mean_CF.norm()) < 0.02
        assert float((near.var_CF - exact.var_CF).norm() / exact.var_CF.norm()) < 0.02
        torch.testing.assert_close(near.mean_CF, again.mean_CF, rtol=1e-3, atol=1e-4)
    assert float((half.features_ND - whole.features_ND).norm() / whole.features_ND.norm()) < 0.02


def test_a_run_keeps_its_precision_on_another_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided at the first start; where it is resumed and emulated it says so."""
    said: list[events.Event] = []

    def started(run: rundir.RunDir) -> Context:
        ctx = Context(run.config(), CPU, run, said.append, lambda: False, lambda: False)
        settle_precision(ctx)
        return ctx

    told(tmp_path, INTEL, monkeypatch)
    fast, plain = rundir.create(RunConfig()), rundir.create(override(RunConfig(), ["run.precision=fp32"]))
    assert started(fast).bf16
    assert not started(plain).bf16
    assert not said
    told(tmp_path, OLDER, monkeypatch)
    assert started(fast).bf16
    assert [one.message for one in said if isinstance(one, events.Log) and "no instructions for bf16" in one.message]
    said.clear()
    assert not started(plain).bf16
    later = rundir.create(RunConfig())
    assert not started(later).bf16
    assert later.config().run.precision == "fp32"
    assert not said
