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
        (
            "squeeze.schedule=exponential",
            "squeeze.augment=autoaugment",
            "squeeze.erase=0.5",
            "squeeze.cutmix=1",
            "squeeze.ema=0.9",
            "train.batch_size=10",
            "train.accumulate=5",
        ),
    ],
    ids=["randaugment", "mse-sgd", "priors-curriculum", "teacher-accumulate"],
)
def test_options_of_students_and_recovery_run(changes: tuple[str, ...], nursery: Nursery) -> None:
    run = _finished(nursery, small(*QUICK, *changes))
    assert json.loads(run.report_file.read_bytes())["student_top1"] > 0


def test_a_verifier_looks_on_and_changes_nothing(committee: rundir.RunDir, nursery: Nursery) -> None:
    """SRe2L's recovery without statistics of the real images, judged by another run's network."""
    plain = (
        *QUICK, "recover.objective=sre2l", "recover.bn=global", "recover.chunk=across-classes",
        "barycenter.weights=none", "recover.quality=false",
    )  # fmt: skip
    judge = committee.checkpoints / "teacher.safetensors"
    verified = _finished(nursery, small(*plain, f'recover.verifier="convnet3={judge}"', "recover.verify_every=2"))
    found = seen(verified)
    stages = [event.stage for event in found if isinstance(event, events.Stage) and event.what == "begin"]
    assert stages == ["squeeze", "recover", "relabel", "train"]
    looks = [event for event in found if isinstance(event, events.Metrics) and event.stage == "verifier"]
    assert {(event.student, event.epochs) for event in looks} == {("convnet3", 5)}
    assert [(event.chunk, event.epoch) for event in looks] == [(0, 2), (0, 4), (0, 5), (1, 2), (1, 4), (1, 5)]
    judged = json.loads(verified.report_file.read_bytes())["quality"]["verifier"]
    assert 0 < judged["random_real_top1"] <= 100
    teacher = json.loads(committee.report_file.read_bytes())["teacher_top1"]
    assert judged["val_top1"] == pytest.approx(teacher), "it is that run's teacher, on the same validation images"
    alone = _finished(nursery, small(*plain))
    images = [{name: sha for name, sha in content(run).items() if "images/" in name} for run in (verified, alone)]
    assert images[0] == images[1]
