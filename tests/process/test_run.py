"""The true engine in true processes: a whole run, determinism, kills, stops, bad input."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine import events, presets, rundir
from engine.config import RunConfig, override
from wmdd_tui.store.launch import launch

SMALL = [
    "ipc=3", "data.max_per_class=20", "teacher.width=8", "squeeze.epochs=2", "barycenter.restarts=1",
    "recover.iterations=40", "recover.batch_size=10", "recover.checkpoint_every=10", "recover.preview_every=20",
    "train.epochs=6", "train.eval_every=3", "run.threads=1", "run.use_cache=false",
]  # fmt: skip
PATIENCE = 120.0


def small(*changes: str) -> RunConfig:
    return override(presets.get("digits"), [*SMALL, *changes])


def run_engine(config: RunConfig) -> tuple[rundir.RunDir, int]:
    run = rundir.create(config)
    return run, launch(run).wait(PATIENCE)


def content(run: rundir.RunDir) -> dict[str, str]:
    """Digest of every image, soft label and student file."""
    files = [*run.images.rglob("*.png"), *run.labels.iterdir(), *run.student.iterdir()]
    return {str(file.relative_to(run.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def last_end(run: rundir.RunDir) -> events.End:
    return [event for event in events.read(run.events_file) if isinstance(event, events.End)][-1]


def wait_for_iteration(run: rundir.RunDir, process: subprocess.Popen[bytes], stage: str) -> None:
    """Until the stage reports progress or the engine ends."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if run.events_file.exists() and any(
            isinstance(event, events.Progress) and event.stage == stage for event in events.read(run.events_file)
        ):
            return
        os.sched_yield()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[rundir.RunDir, dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WMDD_HOME", str(tmp_path_factory.mktemp("undisturbed")))
        run, code = run_engine(small())
    assert code == 0, run.console_file.read_text()
    return run, content(run)


def test_a_run_leaves_what_it_promises(undisturbed: tuple[rundir.RunDir, dict[str, str]]) -> None:
    run, files = undisturbed
    assert rundir.state_of(run) == "finished"
    report = json.loads(run.report_file.read_bytes())
    assert set(report["stages"]) == {"squeeze", "statistics", "barycenter", "recover", "relabel", "train"}
    assert report["image_count"] == 30
    assert 0 <= report["student_top1"] <= report["student_top5"] <= 100
    assert report["w2"] > 0
    images = sorted(run.images.rglob("*.png"))
    assert len(images) == 30
    assert {image.parent.name for image in images} == {str(digit) for digit in range(10)}
    with Image.open(images[0]) as first:
        assert first.size == (16, 16)
        assert first.mode == "RGB"
    card = json.loads((run.images / "dataset.json").read_bytes())
    assert card["accuracies"]["student_top1"] == report["student_top1"]
    assert (run.report / "contact_sheet.png").is_file()
    assert files
    seen = list(events.read(run.events_file))
    hello = next(event for event in seen if isinstance(event, events.Hello))
    assert hello.chunks == 4
    iterations = [event for event in seen if isinstance(event, events.Iters)]
    for chunk in range(hello.chunks):
        recorded = [event.first + i for event in iterations if event.chunk == chunk for i in range(len(event.total))]
        assert recorded == list(range(40)), "every iteration is recorded exactly once"
    assert any(isinstance(event, events.Memory) and event.rss > 0 for event in seen)
    assert last_end(run).status == "finished"


def test_same_configuration_same_bytes(undisturbed: tuple[rundir.RunDir, dict[str, str]]) -> None:
    run, code = run_engine(small())
    assert code == 0
    assert content(run) == undisturbed[1]


@pytest.mark.parametrize("stage", ["squeeze", "recover", "train"])
def test_killed_and_resumed_ends_with_the_same_bytes(
    undisturbed: tuple[rundir.RunDir, dict[str, str]], stage: str
) -> None:
    run = rundir.create(small())
    process = launch(run)
    wait_for_iteration(run, process, stage)
    process.send_signal(signal.SIGKILL)
    process.wait(PATIENCE)
    assert rundir.state_of(run) in ("crashed", "finished")
    assert launch(run).wait(PATIENCE) == 0, run.console_file.read_text()
    assert content(run) == undisturbed[1]


def test_stopped_and_resumed_ends_with_the_same_bytes(undisturbed: tuple[rundir.RunDir, dict[str, str]]) -> None:
    run = rundir.create(small())
    process = launch(run)
    wait_for_iteration(run, process, "recover")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 3, run.console_file.read_text()
    assert rundir.state_of(run) == "stopped"
    assert launch(run).wait(PATIENCE) == 0
    assert content(run) == undisturbed[1]


def test_micro_batches_give_the_same_images_but_rounding(undisturbed: tuple[rundir.RunDir, dict[str, str]]) -> None:
    run, code = run_engine(small("recover.micro_batch=4", 'run.until="recover"', "recover.iterations=40"))
    assert code == 0
    for image in sorted(undisturbed[0].images.rglob("*.png"))[:5]:
        with Image.open(image) as ours, Image.open(run.images / image.relative_to(undisturbed[0].images)) as theirs:
            first, second = (np.asarray(one, dtype=float) for one in (ours, theirs))
        assert np.abs(first - second).mean() < 3


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
    ],
    ids=["sre2l", "optimized-paper", "real-online", "control"],
)  # fmt: skip
def test_variants_run(changes: list[str]) -> None:
    run, code = run_engine(small("recover.iterations=5", "train.epochs=2", "squeeze.epochs=1", *changes))
    assert code == 0, run.console_file.read_text()


def test_the_best_epochs_teacher_can_be_kept() -> None:
    run, code = run_engine(small("squeeze.epochs=4", "squeeze.lr=0.8", 'squeeze.keep="best"', 'run.until="squeeze"'))
    assert code == 0, run.console_file.read_text()
    found = [event for event in events.read(run.events_file) if isinstance(event, events.Metrics)]
    seen = [event for event in found if event.stage == "squeeze"]
    assert len(seen) == 4
    report = json.loads(run.report_file.read_bytes())
    assert report["teacher_top1"] == max(event.top1 for event in seen if event.top1 is not None)


def test_another_runs_images_under_other_labels(undisturbed: tuple[rundir.RunDir, dict[str, str]]) -> None:
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
    assert reports[0]["quality"]["images"]["bn"] < reports[0]["quality"]["random_real"]["bn"]


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
    ("what", "said"),
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
def test_bad_input_ends_before_any_work(tmp_path: Path, what: str, said: str) -> None:
    root = _tree(tmp_path / "data")
    config = small('data.dataset="imagefolder"', f'data.path="{root}"', *_spoil(root, what))
    run, code = run_engine(config)
    end = last_end(run)
    assert code == 2
    assert end.status == "failed"
    assert said in end.message
    assert "Traceback" not in run.console_file.read_text()
    assert not (root / "executed").exists()
    assert not any(run.images.iterdir())


def test_a_corrupt_image_can_be_left_out(tmp_path: Path) -> None:
    root = _tree(tmp_path / "data")
    _spoil(root, "truncated image")
    changes = ("ipc=2", 'data.on_corrupt="skip"', 'run.until="statistics"')
    run, code = run_engine(small('data.dataset="imagefolder"', f'data.path="{root}"', *changes))
    assert code == 0, run.console_file.read_text()
    logged = [event.message for event in events.read(run.events_file) if isinstance(event, events.Log)]
    assert any("1.png" in message for message in logged)


def test_a_second_engine_is_refused() -> None:
    run = rundir.create(small())
    with rundir.hold_lock(run):
        done = subprocess.run(
            [sys.executable, "-m", "engine", str(run.path)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert "another engine" in done.stderr
