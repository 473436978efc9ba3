"""The true engine in true processes: a whole run, determinism, kills, stops, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nursery import Nursery
from PIL import Image
from scenes import SMALL, content, last_end, said, seen, small, stage_at

from engine import events, rundir
from engine.config import RunConfig
from engine.devices import computes_in_bf16
from wmdd_tui.cli.options import ResumeChoice, may_resume
from wmdd_tui.store.launch import launch

PATIENCE = 840.0
#: Importing torch takes seconds on a quiet machine, and minutes where others compute beside the tests.
pytestmark = pytest.mark.timeout(900)
Undisturbed = tuple[rundir.RunDir, dict[str, str]]
Start = Callable[[RunConfig], tuple[rundir.RunDir, int]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A run started as the commands start it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WMDD_HOME", str(tmp_path_factory.mktemp("undisturbed")))
        run = rundir.create(small())
        code = launch(run).wait(PATIENCE)
    assert code == 0, run.console_file.read_text()
    return run, content(run)


@pytest.fixture
def run_engine(nursery: Nursery) -> Start:
    """Run a configuration to its end."""

    def start(config: RunConfig) -> tuple[rundir.RunDir, int]:
        run = rundir.create(config)
        return run, nursery.start(run.path).wait()

    return start


def test_a_run_leaves_what_it_promises(undisturbed: Undisturbed) -> None:
    run, files = undisturbed
    assert rundir.state_of(run) == "finished"
    report = json.loads(run.report_file.read_bytes())
    assert set(report["stages"]) == {"squeeze", "statistics", "barycenter", "recover", "relabel", "train"}
    assert report["image_count"] == 20
    assert report["precision"] == ("bf16" if computes_in_bf16("auto", "cpu") else "fp32")
    assert 0 <= report["student_top1"] <= report["student_top5"] <= 100
    assert report["w2"] > 0
    images = sorted(run.images.rglob("*.png"))
    assert len(images) == 20
    assert {image.parent.name for image in images} == {str(digit) for digit in range(10)}
    with Image.open(images[0]) as first:
        assert first.size == (16, 16)
        assert first.mode == "RGB"
    card = json.loads((run.images / "dataset.json").read_bytes())
    assert card["accuracies"]["student_top1"] == report["student_top1"]
    assert (run.report / "contact_sheet.png").is_file()
    assert files
    found = seen(run)
    hello = next(event for event in found if isinstance(event, events.Hello))
    assert hello.chunks == 2
    iterations = [event for event in found if isinstance(event, events.Iters)]
    for chunk in range(hello.chunks):
        recorded = [event.first + i for event in iterations if event.chunk == chunk for i in range(len(event.total))]
        assert recorded == list(range(30)), "every iteration is recorded exactly once"
    assert any(isinstance(event, events.Memory) and event.rss > 0 for event in found)
    assert last_end(run).status == "finished"


def test_same_configuration_same_bytes(undisturbed: Undisturbed, run_engine: Start) -> None:
    run, code = run_engine(small())
    assert code == 0
    assert content(run) == undisturbed[1]


def test_a_killed_job_that_is_requeued_ends_with_the_same_bytes(
    undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Slurm has it: the same command again, with processes started by the commands' own function."""
    run = rundir.create(small())
    process = launch(run)
    look = threading.Event()
    while process.poll() is None and stage_at(seen(run)) != "recover":
        look.wait(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    assert rundir.state_of(run) in ("crashed", "finished")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assignments = [word for one in SMALL for word in ("--set", one)]
    command = [sys.executable, "-m", "wmdd_tui", "run", "--preset", "digits", *assignments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["run_id"] == run.id
    assert content(run) == undisturbed[1]


def test_what_a_requeued_job_goes_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, other = small(), small("seed=1")
    assert rundir.unfinished(settings) is None
    run = rundir.create(settings)
    rundir.create(other)
    assert rundir.unfinished(settings) == run
    writer = events.Writer(run.events_file)
    writer.write(events.End(status="stopped"))
    assert rundir.unfinished(settings) == run
    writer.write(events.End(status="finished"))
    writer.close()
    assert rundir.unfinished(settings) is None
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert [may_resume(choice) for choice in (None, ResumeChoice.AUTO, ResumeChoice.NEVER)] == [False, True, False]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert [may_resume(choice) for choice in (None, ResumeChoice.NEVER)] == [True, False]


def test_a_changed_configuration_does_not_go_on_from_checkpoints_of_another(
    undisturbed: Undisturbed, nursery: Nursery
) -> None:
    run = rundir.create(small("recover.lr=0.3", "train.lr=1e-3"))
    assert nursery.start(run.path).wait() == 0
    run.config_file.write_bytes(undisturbed[0].config_file.read_bytes())
    assert nursery.start(run.path).wait() == 0
    assert content(run) == undisturbed[1]
    assert any("is of other work than this run's" in message for message in said(run))


def test_micro_batches_give_the_same_images_but_rounding(undisturbed: Undisturbed, run_engine: Start) -> None:
    run, code = run_engine(small("recover.micro_batch=4", 'run.until="recover"'))
    assert code == 0
    for image in sorted(undisturbed[0].images.rglob("*.png"))[:5]:
        with Image.open(image) as ours, Image.open(run.images / image.relative_to(undisturbed[0].images)) as theirs:
            first, second = (np.asarray(one, dtype=float) for one in (ours, theirs))
        assert np.abs(first - second).mean() < 3


def test_chunks_side_by_side_are_stopped_killed_and_resumed_with_the_same_bytes(
    undisturbed: Undisturbed, nursery: Nursery
) -> None:
    run = rundir.create(small("recover.concurrent=2", "run.checkpoint_seconds=0"))
    stopped = nursery.start(run.path, [("signalled", {"at": ".recover-000000.*", "number": signal.SIGTERM, "nth": 5})])
    assert stopped.wait() == 3, run.console_file.read_text()
    saved = {path.name.split(".")[0] for path in run.checkpoints.glob("recover-*")}
    assert saved == {"recover-000000", "recover-000001"}, "neither chunk waits for the other"
    told = [(event.chunk, event.first) for event in seen(run) if isinstance(event, events.Iters)]
    assert {chunk for chunk, _ in told} == {0, 1}
    shares = [event.done for event in seen(run) if isinstance(event, events.Progress) and event.stage == "recover"]
    assert shares == sorted(shares)
    assert shares[-1] <= 2 * 8, "both were at their beginning"
    killed = nursery.start(run.path, [("signalled", {"at": ".recover-000001.*", "number": signal.SIGKILL, "nth": 4})])
    assert killed.wait() == -signal.SIGKILL
    assert nursery.start(run.path).wait() == 0, run.console_file.read_text()
    assert content(run) == undisturbed[1]


@pytest.mark.parametrize(
    "changes",
    [
        [
            "recover.objective=sre2l",
            "recover.bn=global",
            "recover.chunk=across-classes",
            "barycenter.weights=none",
        ],
        ['barycenter.weights="optimized"', 'recover.loss_semantics="paper"', "recover.r_bn=0.1", "ipc=12"],
        ['recover.init="real"', 'recover.augment="per-image"', 'relabel.storage="online"', 'relabel.mix="mixup"'],
        ["recover.objective=real", "train.labels=hard"],
        ["recover.init=patches", "recover.patches_per_image=4", "recover.patch_choice=barycenter"],
        ["recover.objective=start", "recover.init=patches", "recover.patch_photos=4"],
    ],
    ids=["sre2l", "optimized-paper", "real-online", "control", "patches", "start"],
)  # fmt: skip
def test_variants_run(changes: list[str], run_engine: Start) -> None:
    run, code = run_engine(small("recover.iterations=5", "train.epochs=2", "squeeze.epochs=1", *changes))
    assert code == 0, run.console_file.read_text()


@pytest.mark.parametrize(
    ("objective", "note", "end"), [("wmdd", "patches of image 1 of 10", (10, 10)), ("start", "", (20, 20))]
)
def test_choosing_patches_is_told(objective: str, note: str, end: tuple[int, int], run_engine: Start) -> None:
    """It may take minutes before the first iteration."""
    run, code = run_engine(
        small("recover.init=patches", f"recover.objective={objective}", "recover.iterations=5", "run.until=recover")
    )
    assert code == 0, run.console_file.read_text()
    told = [event for event in seen(run) if isinstance(event, events.Progress) and event.stage == "recover"]
    assert told[0].note == note
    assert told[0].done == 0
    assert (told[-1].done, told[-1].total, told[-1].note) == (*end, "")


def test_the_best_epochs_teacher_can_be_kept(run_engine: Start) -> None:
    run, code = run_engine(small("squeeze.epochs=4", "squeeze.lr=0.8", 'squeeze.keep="best"', 'run.until="squeeze"'))
    assert code == 0, run.console_file.read_text()
    found = [event for event in seen(run) if isinstance(event, events.Metrics)]
    epochs = [event for event in found if event.stage == "squeeze"]
    assert len(epochs) == 4
    report = json.loads(run.report_file.read_bytes())
    assert report["teacher_top1"] == max(event.top1 for event in epochs if event.top1 is not None)


def test_another_runs_images_under_other_labels(undisturbed: Undisturbed, run_engine: Start) -> None:
    """The contest's rows: given images are taken byte for byte, and their quality is measured as their maker's was."""
    first = undisturbed[0]
    changes = ["recover.objective=given", f'recover.path="{first.images}"', "train.labels=hard"]
    run, code = run_engine(small(*changes))
    assert code == 0, run.console_file.read_text()
    ours, theirs = content(run), content(first)
    assert {k: v for k, v in ours.items() if k.endswith(".png")} == {
        k: v for k, v in theirs.items() if k.endswith(".png")
    }
    reports = [json.loads(one.report_file.read_bytes()) for one in (run, first)]
    assert reports[0]["quality"] == reports[1]["quality"], "measured alike, whoever made the images"
    assert set(reports[0]["quality"]["images"]) == {"teacher_top1", "ce", "feature", "bn"}


def _tree(root: Path, size: int = 40) -> Path:
    for split in ("train", "val"):
        for label in ("cat [b]", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (size, size), (number * 60, 50, 200)).save(folder / f"{number}.png")
    return root


def _spoil(root: Path, what: str) -> list[str]:
    if what == "missing":
        return [f'data.path="{root}/nowhere"']
    if what == "empty class":
        (root / "train" / "void").mkdir()
        (root / "val" / "void").mkdir()
    if what == "truncated image":
        file = root / "train" / "dog" / "1.png"
        file.write_bytes(file.read_bytes()[:60])
    if what == "empty checkpoint":
        (root / "zero.pt").touch()
        return ['teacher.source="checkpoint"', f'teacher.path="{root}/zero.pt"']
    if what == "code in pickle":
        import pickle

        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return (os.system, (f"touch '{root}/executed'",))

        (root / "evil.pt").write_bytes(pickle.dumps(Evil()))
        return ['teacher.source="checkpoint"', f'teacher.path="{root}/evil.pt"']
    if what == "no cuda":
        return ['run.device="cuda:7"']
    if what == "other classes":
        from engine.models import build

        torch.save(build("convnet3", 5, 16, width=8).state_dict(), root / "five.pt")
        return ['teacher.source="checkpoint"', f'teacher.path="{root}/five.pt"']
    return []


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("missing", "nowhere"),
        ("empty class", "void"),
        ("truncated image", "1.png"),
        ("empty checkpoint", "0 bytes"),
        ("code in pickle", "refused"),
        ("no cuda", "cuda:7"),
        ("other classes", "5 classes"),
    ],
)
def test_bad_input_ends_before_any_work(tmp_path: Path, what: str, told: str, run_engine: Start) -> None:
    root = _tree(tmp_path / "data")
    config = small('data.dataset="imagefolder"', f'data.path="{root}"', *_spoil(root, what))
    run, code = run_engine(config)
    end = last_end(run)
    assert code == 2
    assert end.status == "failed"
    assert told in end.message
    assert "Traceback" not in run.console_file.read_text()
    assert not (root / "executed").exists()
    assert not any(run.images.iterdir())


def test_a_corrupt_image_can_be_left_out(tmp_path: Path, run_engine: Start) -> None:
    root = _tree(tmp_path / "data")
    _spoil(root, "truncated image")
    changes = ("ipc=2", 'data.on_corrupt="skip"', 'run.until="statistics"')
    run, code = run_engine(small('data.dataset="imagefolder"', f'data.path="{root}"', *changes))
    assert code == 0, run.console_file.read_text()
    assert any("1.png" in message for message in said(run))


def test_a_second_engine_is_refused() -> None:
    run = rundir.create(small())
    with rundir.hold_lock(run):
        done = subprocess.run(
            [sys.executable, "-m", "engine", str(run.path)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "another engine" in done.stderr
