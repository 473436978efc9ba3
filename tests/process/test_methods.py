"""Methods beside the plain one, by the true engine: a committee, several students, hard labels under RandAugment."""

from __future__ import annotations

import json

import pytest
from nursery import Nursery
from scenes import content, seen, small

from engine import events, rundir
from engine.config import RunConfig
from wmdd_tui.store.embedding import figures_of
from wmdd_tui.store.features import read_features

pytestmark = pytest.mark.timeout(900)
QUICK = ("recover.iterations=5", "train.epochs=2", "squeeze.epochs=1", "train.eval_every=1")


def _finished(nursery: Nursery, config: RunConfig) -> rundir.RunDir:
    run = rundir.create(config)
    assert nursery.start(run.path).wait() == 0, run.console_file.read_text()
    return run


@pytest.fixture(scope="module")
def committee(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> rundir.RunDir:
    """Two teachers, two students."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WMDD_HOME", str(tmp_path_factory.mktemp("committee")))
        changes = ("teacher.committee=convnet4", "train.students=convnet3,convnet4")
        return _finished(nursery, small(*QUICK, *changes))


def test_a_committee_is_taught_surveyed_and_reported(committee: rundir.RunDir) -> None:
    report = json.loads(committee.report_file.read_bytes())
    assert [row["arch"] for row in report["students"]] == ["convnet3", "convnet4"]
    assert report["student_top1"] == report["students"][0]["top1"]
    member = report["committee"][0]
    assert (member["teacher"], member["sha256"] != report["teacher_sha256"]) == ("convnet4", True)
    assert member["w2"] > 0
    found = seen(committee)
    hello = next(event for event in found if isinstance(event, events.Hello))
    assert len(hello.layers) == 3 + 4
    assert hello.layers[3].startswith("2:")
    layers = [len(event.values) for event in found if isinstance(event, events.Layers)]
    assert set(layers) == {7}
    kept = committee.path / "committee" / "1" / "checkpoints"
    assert {"teacher.safetensors", "statistics.ckpt", "barycenter.ckpt", "features.npy"} <= {
        file.name for file in kept.iterdir()
    }
    assert {file.name for file in committee.student.iterdir()} == {
        "student.safetensors", "student-2-convnet4.safetensors",
    }  # fmt: skip


def test_a_finished_committee_resumes_to_what_it_was(committee: rundir.RunDir, nursery: Nursery) -> None:
    before = content(committee)
    assert nursery.start(committee.path).wait() == 0, committee.console_file.read_text()
    assert content(committee) == before


def test_the_engine_keeps_the_features_that_embed_reads(committee: rundir.RunDir) -> None:
    found = read_features(committee)
    assert len(found) == 10
    assert all(len(one.images_MD) == 2 and one.points_KD is not None for one in found)
    figures = figures_of(found[0], 0)
    assert figures.w2_barycenter is not None
    assert 0 < figures.w2_barycenter < figures.w2_images


@pytest.mark.parametrize(
    "changes",
    [
        ("recover.objective=real", "train.labels=hard", "train.augment=randaugment"),
        ("train.loss=mse-gt", "train.optimizer=sgd", "train.schedule=linear", "train.warmup_epochs=1"),
        ("train.loss=soft-ce", "recover.tv=0.01", "recover.l2=0.01", "recover.curriculum=cosine"),
    ],
    ids=["randaugment", "mse-sgd", "priors-curriculum"],
)
def test_options_of_students_and_recovery_run(changes: tuple[str, ...], nursery: Nursery) -> None:
    run = _finished(nursery, small(*QUICK, *changes))
    assert json.loads(run.report_file.read_bytes())["student_top1"] > 0
