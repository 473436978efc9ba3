"""Every fault a run must survive, as a function that causes it in a true engine process and looks at what happened.

``test_faults.py`` causes some of them, ``storm.py`` (``make faults``) all, with kills at random moments beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from nursery import Engine, Injury, Nursery
from PIL import Image
from scenes import STAGES, content, from_tree, last_end, said, seen, small, stage_at, tree_of_digits

from engine import checkpoints, events, rundir
from engine.config import RunConfig

#: The files a run writes, in the order of their first writing, under the names they have while they are written.
RESERVE = "..reserve.*"
WRITTEN = (
    RESERVE, ".proc.json.*", ".squeeze.?.ckpt.*", ".teacher-best.ckpt.*", ".teacher.ckpt.*",
    ".teacher.safetensors.*", ".features.npy.partial", ".statistics.?.ckpt.*", ".statistics.ckpt.*",
    ".barycenter.?.ckpt.*", ".barycenter.ckpt.*", ".recover-*", ".chunk-??????.ckpt.*", ".class*.png.*",
    ".contact_sheet.png.*", ".relabel.?.ckpt.*", ".epochs-*", ".train.?.ckpt.*", ".student.safetensors.*",
    ".dataset.json.*", ".report.json.*",
)  # fmt: skip
SLOTS = {stage: ".recover-*" if stage == "recover" else f".{stage}.?.ckpt.*" for stage in STAGES}
EVERY_UNIT = "run.checkpoint_seconds=0"
MOUNT_BYTES = 24 << 20


@dataclass
class Ward:
    """Where faults are caused: a nursery of engines, a folder, the undisturbed runs' contents, and what was counted."""

    nursery: Nursery
    root: Path
    expected: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    stop_seconds: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, fault: str, what: str, number: int = 1) -> None:
        self.counts.setdefault(fault, Counter())[what] += number

    def undisturbed(self, name: str, settings: RunConfig) -> dict[str, str]:
        """What a run of these settings leaves when nothing happens to it."""
        if name not in self.expected:
            run = rundir.create(settings)
            assert self.nursery.start(run.path).wait() == 0, run.console_file.read_text()
            self.expected[name] = content(run)
        return self.expected[name]

    def start(self, run: rundir.RunDir, *injuries: Injury) -> Engine:
        return self.nursery.start(run.path, injuries)

    def suffer(self, fault: str, run: rundir.RunDir, code: int, *injuries: Injury) -> None:
        """One engine with an injury, which must end with this code."""
        self.count(fault, "cases")
        ended = self.start(run, *injuries).wait()
        assert ended == code, f"{fault}: {injuries} ended with {ended}\n{run.console_file.read_text()}\n{said(run)}"
        assert "Traceback" not in run.console_file.read_text(), run.console_file.read_text()

    def finish(self, fault: str, run: rundir.RunDir, *injuries: Injury, name: str = "small") -> None:
        """Resume to the end, and compare every byte with the undisturbed run."""
        self.count(fault, "resumed")
        code = self.start(run, *injuries).wait()
        assert code == 0, f"{fault}: the resumed run ended with {code}\n{run.console_file.read_text()}"
        assert "Traceback" not in run.console_file.read_text(), run.console_file.read_text()
        found, expected = content(run), self.expected[name]
        assert found == expected, f"{fault}: differs in {[key for key in expected if found.get(key) != expected[key]]}"
        left = [file.name for file in run.path.rglob(".*")]
        assert not left, f"{fault}: half-written files are left: {left}"
        self.count(fault, "identical")


def wait_for_stage(run: rundir.RunDir, engine: Engine, stage: str, since: int) -> None:
    """Until a stage begins after the first ``since`` events, or the engine ends."""
    engine.until(lambda: stage_at(seen(run)[since:]) == stage)


@contextmanager
def small_disk(ward: Ward) -> Iterator[tuple[Path, str]]:
    """A home on a file system of its own, and its mount point; "" where mounting is not allowed."""
    folder = ward.root / "disk"
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={MOUNT_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    home, before = folder / "home", os.environ["WMDD_HOME"]
    os.environ["WMDD_HOME"] = str(home)
    try:
        yield home, str(folder) if mounted else ""
    finally:
        os.environ["WMDD_HOME"] = before
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


# --- interruptions ----------------------------------------------------------------------------------------


def killed_in_every_writing(ward: Ward) -> None:
    """SIGKILL at the moment each kind of file is opened for writing, one after another in one run."""
    run = rundir.create(small(EVERY_UNIT))
    for pattern in WRITTEN:
        ward.suffer("killed while writing", run, -9, ("signalled", {"at": pattern, "number": 9}))
    ward.finish("killed while writing", run)


def stopped_in_every_stage(ward: Ward) -> None:
    """SIGTERM in each stage, one after another in one run; how long each took is kept."""
    run = rundir.create(small())
    for stage in STAGES:
        since = len(seen(run))
        engine = ward.start(run)
        wait_for_stage(run, engine, stage, since)
        began = time.monotonic()
        engine.signal(signal.SIGTERM)
        code = engine.wait()
        ward.stop_seconds[stage] = round(time.monotonic() - began, 3)
        ward.count("stopped", "cases")
        assert code == 3 or stage == "train", f"{stage}: {code}\n{run.console_file.read_text()}"
        assert last_end(run).status in ("stopped", "finished")
    ward.finish("stopped", run)


def pre_empted(ward: Ward) -> None:
    """SIGUSR1 in stages without other checkpoints: it checkpoints and goes on; a kill then costs nothing before it."""
    run = rundir.create(small("run.checkpoint_seconds=86400", "recover.checkpoint_every=1000000"))
    for stage in STAGES:
        since, asked_before = len(seen(run)), sum("as asked" in one for one in said(run))
        engine = ward.start(run)
        wait_for_stage(run, engine, stage, since)
        engine.signal(signal.SIGUSR1)
        engine.until(lambda before=asked_before: sum("as asked" in one for one in said(run)) > before)
        engine.kill()
        ward.count("asked for a checkpoint", "cases")
    asked = [one.partition(": ")[2] for one in said(run) if "as asked" in one]
    gone_on = [one.partition("checkpoint of ")[2] for one in said(run) if "goes on" in one]
    assert asked, said(run)
    assert gone_on, said(run)
    ward.finish("asked for a checkpoint", run)


def interrupted_twice(ward: Ward) -> None:
    """Two SIGINT within 3 s, while steps take long: the process ends at once, and the run can be resumed."""
    heavy = small("data.resolution=64", "teacher.width=64", "ipc=10", "recover.batch_size=100", "recover.iterations=3",
                  "squeeze.epochs=1", 'run.until="recover"')  # fmt: skip
    run = rundir.create(heavy)
    engine = ward.start(run)
    wait_for_stage(run, engine, "recover", 0)
    began = time.monotonic()
    while engine.poll() is None:
        engine.signal(signal.SIGINT)
        time.sleep(0.02)  # the pace of an impatient finger, no synchronisation
    ward.stop_seconds["second interrupt"] = round(time.monotonic() - began, 3)
    ward.count("interrupted twice", "cases")
    assert engine.code == 130, f"{engine.code}\n{run.console_file.read_text()}"
    assert rundir.state_of(run) == "crashed"
    ward.count("interrupted twice", "resumed")
    assert ward.start(run).wait() == 0, run.console_file.read_text()
    assert len(list(run.images.rglob("*.png"))) == 100


def damaged_checkpoints(ward: Ward) -> None:
    """In each stage: killed while the third checkpoint is written, then the newest of the two is damaged."""
    for number, stage in enumerate(STAGES):
        run = rundir.create(small(EVERY_UNIT))
        ward.suffer("damaged checkpoint", run, -9, ("signalled", {"at": SLOTS[stage], "number": 9, "nth": 3}))
        slots = [file for file in run.checkpoints.glob("*.?.ckpt") if file.name.startswith(stage)]
        assert len(slots) == 2, slots
        newest = max(slots, key=lambda file: checkpoints.read(file).state["serial"])
        data = newest.read_bytes()
        torn = data[: len(data) // 2] if number % 2 else data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
        newest.write_bytes(torn)
        ward.finish("damaged checkpoint", run)
        assert any(f"{newest.name} is damaged" in one for one in said(run)), said(run)
        assert any(f"goes on from the checkpoint of {stage}" in one for one in said(run)), said(run)


def another_engine(ward: Ward) -> None:
    """A second engine on one run directory refuses, with file locks and without; a dead one's claim does not stay."""
    for injuries in ([], [("no_flock", {})]):
        run = rundir.create(small())
        run.request("pause")
        first = ward.start(run, *injuries)
        first.until(lambda run=run: any(isinstance(one, events.Beat) and one.paused for one in seen(run)))
        ward.suffer("second engine", run, 2, *injuries)
        assert "another engine is at work" in run.console_file.read_text()
        first.kill()
        ward.finish("second engine", run, *injuries)
        if injuries:
            assert any("no file lock here" in one for one in said(run)), said(run)


def another_host(ward: Ward) -> None:
    """A run whose last engine was on another host: waited for while it may live, refused when it does."""
    run = rundir.create(small())
    ward.suffer(
        "other host", run, -9, ("on_host", {"name": "elsewhere"}), ("signalled", {"at": SLOTS["recover"], "number": 9})
    )
    writer = events.Writer(run.events_file)
    writer.write(events.Beat(t=time.time() - rundir.STALL_SECONDS + 5))
    engine = ward.start(run)
    engine.until(lambda: "waiting" in run.console_file.read_text())
    writer.write(events.Beat())
    assert engine.wait() == 2, run.console_file.read_text()
    assert "on host elsewhere" in run.console_file.read_text()
    writer.write(events.Beat(t=time.time() - rundir.STALL_SECONDS + 1))
    writer.close()
    ward.finish("other host", run)


# --- disks ------------------------------------------------------------------------------------------------


def full_disk(ward: Ward) -> None:
    """No byte left at each kind of file, one after another in one run; with room again it goes on."""
    with small_disk(ward) as (_, mount):
        run = rundir.create(small(EVERY_UNIT))
        for pattern in WRITTEN:
            ward.suffer("full disk", run, 1, ("full_disk", {"at": pattern, "mount": mount}))
            if mount:
                if pattern != RESERVE:  # without it there is no room to tell
                    end = last_end(run)
                    assert (end.status, end.error) == ("failed", "DiskFull"), f"{pattern}: {end}"
                    assert "resume" in end.remedy
                (Path(mount) / "ballast").unlink()
        ward.finish("full disk", run)


def full_disk_for_telemetry(ward: Ward) -> None:
    """No byte left while a chunk is recovered: events and previews are lost and said, the images are the same."""
    with small_disk(ward) as (_, mount):
        run = rundir.create(small("run.checkpoint_seconds=86400"))
        ward.count("full disk for telemetry", "cases")
        injury = ("full_disk", {"at": ".chunk-??????-*.png.*", "until": ".recover-*", "mount": mount})
        ward.finish("full disk for telemetry", run, injury)
        assert any("previews cannot be written" in one for one in said(run)) or any(
            "events before this one were lost" in one for one in said(run)
        ), said(run)


def full_disk_of_the_cache(ward: Ward) -> None:
    """A cache that cannot be written is said, no more."""
    with small_disk(ward) as (_, mount):
        run = rundir.create(small("run.use_cache=true"))
        injury = (
            "full_disk",
            {"at": ".teacher-" + "[0-9a-f]" * 32 + ".ckpt.*", "until": ".teacher.safetensors.*", "mount": mount},
        )
        ward.count("full disk for the cache", "cases")
        ward.finish("full disk for the cache", run, injury)
        assert any("not cached for later runs" in one for one in said(run)), said(run)


def read_only_disk(ward: Ward) -> None:
    """A run directory that cannot be written is refused by name, its state can be read, and it goes on afterwards."""
    with small_disk(ward) as (_, mount):
        run = rundir.create(small())
        ward.suffer("read-only disk", run, -9, ("signalled", {"at": SLOTS["recover"], "number": 9}))
        with _read_only(run, mount) as injuries:
            engine = ward.start(run, *injuries)
            assert engine.wait() == 2
            assert rundir.state_of(run) == "crashed"
        ward.finish("read-only disk", run)


@contextmanager
def _read_only(run: rundir.RunDir, mount: str) -> Iterator[list[Injury]]:
    if mount:
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        try:
            yield []
        finally:
            subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
        return
    os.chmod(run.path, 0o555)
    run.lock_file.chmod(0o444)
    try:
        yield [("unprivileged", {})]
    finally:
        os.chmod(run.path, 0o700)
        run.lock_file.chmod(0o600)


def run_directory_moved_away(ward: Ward) -> None:
    """The run directory is gone in the middle of the work, as with a network disk that is unmounted."""
    run = rundir.create(small())
    away = run.path.with_name("away")
    engine = ward.start(run)
    wait_for_stage(run, engine, "recover", 0)
    run.path.rename(away)
    ward.count("run directory gone", "cases")
    assert engine.wait() == 1
    assert "is gone" in (away / "console.log").read_text()
    away.rename(run.path)
    ward.finish("run directory gone", run)


# --- data -------------------------------------------------------------------------------------------------


def vanished_data(ward: Ward) -> None:
    """The data set's folder is gone while it is read; back again, the run goes on."""
    root = tree_of_digits(ward.root / "tree")
    settings = from_tree(root, "squeeze.epochs=30")
    ward.undisturbed("tree", settings)
    run = rundir.create(settings)
    engine = ward.start(run)
    wait_for_stage(run, engine, "squeeze", 0)
    root.rename(ward.root / "elsewhere")
    code = engine.wait()
    (ward.root / "elsewhere").rename(root)
    ward.count("vanished data", "cases")
    assert (code, last_end(run).error) == (1, "DataVanished"), f"{code} {last_end(run)}"
    assert "is gone" in last_end(run).message
    ward.finish("vanished data", run, name="tree")


def unreadable_image(ward: Ward) -> None:
    """Reading one image fails with an input/output error: named, and left out where that is wanted."""
    root = tree_of_digits(ward.root / "unreadable")
    broken = root / "train" / "1" / "004.png"
    broken.unlink()
    broken.symlink_to("/proc/self/mem")  # its first byte cannot be read: a true EIO
    for storage in ("device", "stream"):
        run = rundir.create(from_tree(root, f"data.storage={storage}"))
        ward.suffer("unreadable image", run, 2)
        assert last_end(run).error == "DataError"
        assert "004.png" in last_end(run).message
        run = rundir.create(from_tree(root, f"data.storage={storage}", "data.on_corrupt=skip", 'run.until="squeeze"'))
        ward.suffer("unreadable image", run, 0)
        assert any("004.png" in one for one in said(run)), said(run)


# --- memory, numbers, clocks ------------------------------------------------------------------------------


def out_of_memory_where_parts_do(ward: Ward) -> None:
    """The device takes two images at a time: everything that can be cut is, with the same result but for rounding."""
    exact = "run.precision=fp32"
    run = rundir.create(small(exact))
    ward.suffer("out of memory", run, 0, ("out_of_memory", {"above": 2, "training": False}))
    told = [one for one in said(run) if "do not fit" in one]
    for stage in ("evaluation", "statistics", "recover", "quality", "relabel"):
        assert any(one.startswith(stage) for one in told), f"{stage}: {told}"
    assert any("micro-batches of 2" in one for one in told), told
    twin = rundir.create(small(exact, 'run.until="recover"'))
    assert ward.start(twin).wait() == 0
    for image in sorted(twin.images.rglob("*.png")):
        with Image.open(image) as ours, Image.open(run.images / image.relative_to(twin.images)) as theirs:
            difference = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
        assert np.abs(difference).mean() < 3, image


def out_of_memory_where_batches_count(ward: Ward) -> None:
    """Where the batch is part of the result the run ends, with the figure that would fit; and that figure fits."""
    for changes, training, option, fitting in (
        (["squeeze.batch_size=20"], True, "squeeze.batch_size", 5),
        (["squeeze.batch_size=4", "train.batch_size=10"], True, "train.batch_size", 5),
        (["statistics.variance=batch-averaged", "statistics.loading_batch=20"], False, "statistics.loading_batch", 5),
    ):
        injury = ("out_of_memory", {"above": 5, "training": training})
        run = rundir.create(small("squeeze.epochs=1", *changes))
        ward.suffer("out of memory", run, 1, injury)
        assert last_end(run).error == "OutOfMemory"
        assert f"{option} = {fitting}, which fits" in last_end(run).remedy
        run = rundir.create(small("squeeze.epochs=1", *changes, f"{option}={fitting}"))
        ward.suffer("out of memory", run, 0, injury)


def non_finite_loss(ward: Ward) -> None:
    """A loss that becomes infinite ends the run by name, and no checkpoint holds what is not finite."""
    for change in ("squeeze.lr=1e38", "recover.r_bn=1e38", "train.lr=1e38"):
        run = rundir.create(small(change, EVERY_UNIT))
        ward.suffer("non-finite loss", run, 1)
        assert last_end(run).error == "NonFiniteLoss", last_end(run)
        for file in run.checkpoints.glob("*.ckpt"):
            for tensor in checkpoints.read(file).tensors.values():
                assert not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()), file


def clock_set(ward: Ward) -> None:
    """The clock is set a day forth or back in the middle of the work."""
    for seconds in (86400.0, -86400.0):
        run = rundir.create(small())
        ward.count("clock set", "cases")
        ward.finish("clock set", run, ("clock_jumps", {"at": ".statistics.ckpt.*", "seconds": seconds}))
        assert rundir.state_of(run) == "finished"
        report = json.loads(run.report_file.read_bytes())
        assert 0 <= report["seconds"] < 3600


ALL: Sequence[Callable[[Ward], None]] = (
    killed_in_every_writing,
    stopped_in_every_stage,
    pre_empted,
    interrupted_twice,
    damaged_checkpoints,
    another_engine,
    another_host,
    full_disk,
    full_disk_for_telemetry,
    full_disk_of_the_cache,
    read_only_disk,
    run_directory_moved_away,
    vanished_data,
    unreadable_image,
    out_of_memory_where_parts_do,
    out_of_memory_where_batches_count,
    non_finite_loss,
    clock_set,
)
