"""The benchmarks' baselines compute what the product computes, which makes their ratios honest; and their output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.baselines import barycenter as pot
from benchmarks.baselines import recover as plain_recover
from benchmarks.baselines.statistics import survey
from benchmarks.harness.floor import counted
from benchmarks.harness.options import Options, parse
from benchmarks.harness.problem import dataset, features, real_images, settings, synthetic_set, teacher
from benchmarks.harness.result import file_name
from benchmarks.harness.timing import peak_bytes
from benchmarks.stages import concurrency, recover, relabel, squeeze, statistics, train
from engine import barycenter, checkpoints
from engine.data import load_dataset
from engine.errors import ConfigError
from engine.recover import to_uint8

#: In single precision, as the baselines are.
TINY = (
    "--device", "cpu", "--arch", "convnet3", "--resolution", "16", "--classes", "3", "--threads", "1", "--set",
    "run.precision=fp32",
)  # fmt: skip


def tiny(stage: str, *more: str) -> Options:
    return parse([stage, *TINY, "--images", "8", "--ipc", "4", "--batch", "12", "--iterations", "2", *more])


def test_a_recovery_step_has_the_same_loss_and_gradient() -> None:
    found = recover.agreement(recover.problem(tiny("recover")))
    assert max(found.values()) < 1e-5, found


def test_recovery_takes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four iterations of both under the same views: optimiser, schedule and clamping are the same."""
    at = recover.problem(tiny("recover"))
    views = recover.recipe_of(at, 4).views
    order = iter(range(4))

    def same_view(*_: object) -> plain_recover.View:
        turn = next(order)
        return recover.shared_view(views[turn : turn + 1])

    monkeypatch.setattr(plain_recover, "random_view", same_view)
    recovery = plain_recover.Recovery(at.images_BCHW, at.plain, recover.task_of(at, 4))
    recovery.run(4)
    recovery.close()
    ours = recover.product(at, 4).int()
    theirs, start = (to_uint8(one, at.data.mean, at.data.std).int() for one in (recovery.images, at.images_BCHW))
    assert float(((ours - theirs).abs() > 1).float().mean()) < 1e-3
    assert float((ours - start).abs().float().mean()) > 10, "the images have hardly moved"


def test_chunks_side_by_side_are_measured_against_the_same_chunks_in_turn() -> None:
    found = concurrency.measure(tiny("concurrency", "--batch", "4", "--set", "recover.concurrent=2"))
    assert (found["chunks"], found["side_by_side"]) == (3, 2)
    assert found["seconds"]["product"]["n"] == 7
    assert found["ratio"] > 0


@pytest.mark.parametrize("source", ["memory", "jpeg"])
def test_statistics_are_the_same(source: str, tmp_path: Path) -> None:
    options = tiny("statistics", "--set", "statistics.variance=batch-averaged")
    config, network = settings(options), teacher(options)
    images_NCHW, labels_N = real_images(options)
    data, loader = dataset(options), statistics.memory_loader(images_NCHW, labels_N, 0)
    if source == "jpeg":
        statistics.write_jpegs(tmp_path, images_NCHW, labels_N)
        values = {"dataset": "imagefolder", "path": str(tmp_path)}
        data = load_dataset(config.data.model_copy(update=values), 0, options.device)
        loader = statistics.file_loader(tmp_path, options.resolution, 0)
    theirs = survey(teacher(options), loader, options.classes, options.device)
    found = statistics.agreement(statistics.product(config, network, data, options.device), theirs)
    assert max(found.values()) < 1e-5, found


def test_barycenters_from_one_start_are_as_good() -> None:
    options = parse(["barycenter", "--device", "cpu", "--classes", "1", "--images", "40", "--dims", "6", "--ipc", "4"])
    (features_nD,) = features(options)
    start_KD = np.random.default_rng(1).normal(size=(4, 6))
    theirs = barycenter.w2_squared(features_nD, pot.solve(features_nD, start_KD), np.full(4, 0.25))
    assert barycenter.refine(features_nD, start_KD, 100, 1e-7).w2sq == pytest.approx(theirs, rel=1e-4)


def test_features_of_a_run_are_those_of_its_classes(tmp_path: Path) -> None:
    features_ND = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.save(tmp_path / "features-1.npy", features_ND)
    labels_N = torch.tensor([0, 1, 0, 2, 1, 0])
    checkpoints.write(tmp_path / "statistics-1.ckpt", {"labels_N": labels_N}, {})
    given = ["barycenter", "--device", "cpu", "--features", str(tmp_path / "features-1.npy"), "--classes"]
    found = features(parse([*given, "2"]))
    assert [one.tolist() for one in found] == [[[0, 1], [4, 5], [10, 11]], [[2, 3], [8, 9]]]
    assert len(features(parse([*given, "9"]))) == 3
    (tmp_path / "statistics-1.ckpt").unlink()
    with pytest.raises(ConfigError, match=r"features-1\.npy holds no features of a run"):
        features(parse([*given, "2"]))


def test_soft_labels_are_the_same() -> None:
    options = tiny("relabel")
    config = settings(options, train={"epochs": 1})
    found = relabel.agreement(options, config, synthetic_set(options), teacher(options))
    assert found["logits"] < 1e-3, found


def test_a_student_has_the_same_loss() -> None:
    options = tiny("train")
    found = train.agreement(options, synthetic_set(options), teacher(options), dataset(options))
    assert found["loss"] < 1e-3, found


def test_a_teacher_takes_the_same_step() -> None:
    options = tiny("squeeze")
    found = squeeze.agreement(options, dataset(options), *real_images(options))
    assert found["step"] < 1e-3, found


def test_the_least_work_is_counted() -> None:
    """A product of 4 × 5 and 5 × 6, and a sum that could be fused away."""
    left, right = torch.ones(4, 5), torch.ones(5, 6)
    found = counted(lambda: (left @ right) + 1)
    assert found == {"flop": 2 * 4 * 5 * 6, "unavoidable_bytes": 4 * (20 + 30 + 24), "eager_bytes": 4 * (74 + 48)}


def test_peak_memory_is_what_is_held_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            torch.ones(1000)
        held = [torch.ones(1000) for _ in range(2)]
        held.clear()

    assert 2 * 4000 <= peak_bytes(work, torch.device("cpu")) < 3 * 4000


FAST = ("--classes", "2", "--images", "12", "--dims", "4", "--ipc", "2", "--repeats", "5", "--threads", "1")


def test_the_last_line_is_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With provenance, the same as the written file, whose name tells where it comes from."""
    assert main(["barycenter", "--device", "cpu", *FAST, "--out", str(tmp_path)]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert any("baseline" in line for line in table)
    assert {"device", "threads", "versions", "configuration", "commit", "date", "seconds", "ratio"} <= result.keys()
    assert result["versions"]["torch"] == torch.__version__
    assert result["configuration"]["dims"] == 4
    assert result["seconds"]["product"]["n"] == result["seconds"]["baseline"]["n"] == 5
    low, high = result["ratio_range"]
    assert low <= high
    assert result["agreement"]["classes_compared"] == 2
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == result
    assert path.name == file_name(result)
    assert path.name.startswith("barycenter_2x12x4-k2_cpu-1t_torch")


def test_json_only(capsys: pytest.CaptureFixture[str]) -> None:
    """The product's iterations and the baseline's go by turns, and nothing but the JSON line is printed."""
    arguments = ["recover", *TINY, "--images", "4", "--ipc", "2", "--batch", "6", "--iterations", "1", "--repeats", "5"]
    assert main([*arguments, "--json-only"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["seconds"]["product"]["n"] == 5
    assert result["peak_bytes"]["baseline"] > 0
    assert result["agreement"]["gradient"] < 1e-5


def test_telemetry_is_measured_on_and_off(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--images", "4", "--ipc", "2", "--batch", "6", "--iterations", "1", "--repeats", "5", "--json-only"]
    assert main(["telemetry", *TINY, *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["share_by_difference"]["n"] == result["share_of_own_calls"]["n"] == 15
    assert 0 < result["share_of_own_calls"]["median"] < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recover", "--repeats", "3"], "--repeats 3 is too few"),
        (["recover", "--device", "cuda:99"], "--device cuda:99 is not there"),
        (["recover", "--device", "abacus"], "--device abacus is no device"),
        (["squeeze", "--device", "cpu", "--classes", "0"], "--classes 0 is not possible"),
        (["train", "--device", "cpu", "--threads", "-1"], "--threads -1 is not possible"),
        (["recover", "--device", "cpu", "--set", "recover.speed=9"], "recover.speed"),
        (["gpu", "--device", "cpu"], "no GPU can be used here"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out
