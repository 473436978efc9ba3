"""Checkpoints and their pace, work cut to the memory, faults by name, telemetry on a failing disk, locks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import barycenter, checkpoints, errors, events, faults, memory, presets, rundir, statistics
from engine.checkpoints import Slots
from engine.config import DataConfig
from engine.context import Pace
from engine.data import reading
from engine.data.listing import Split
from engine.errors import DataError, DataVanished, NonFiniteLoss, OutOfMemory, RunDirError
from engine.models import build


@pytest.fixture
def run() -> rundir.RunDir:
    return rundir.create(presets.get("digits"))


# --- checkpoints ------------------------------------------------------------------------------------------


def slots(folder: Path, work: str = "w") -> Slots:
    return Slots(folder, "stage", work)


def value(found: checkpoints.Loaded | None) -> float | None:
    return None if found is None else float(found.tensors["x"])


def test_a_damaged_newest_checkpoint_falls_back_and_says_so(tmp_path: Path) -> None:
    writer = slots(tmp_path)
    for number in range(5):
        writer.save({"x": torch.tensor(float(number))}, step=number)
    assert len(list(tmp_path.iterdir())) == 2, "two are kept"
    newest = max(tmp_path.iterdir(), key=lambda file: checkpoints.read(file).state["serial"])
    newest.write_bytes(newest.read_bytes()[:-1])
    told: list[str] = []
    again = slots(tmp_path)
    assert value(again.load(told.append)) == 3.0
    assert len(told) == 1
    assert newest.name in told[0]
    again.save({"x": torch.tensor(9.0)})
    assert value(slots(tmp_path).load(pytest.fail)) == 9.0, "the damaged one is the first to be written over"


def test_a_checkpoint_of_other_work_is_said_and_not_used(tmp_path: Path) -> None:
    slots(tmp_path, "one").save({"x": torch.tensor(1.0)})
    told: list[str] = []
    assert slots(tmp_path, "other").load(told.append) is None
    assert "other work" in told[0]


def test_what_is_not_finite_is_never_kept(tmp_path: Path) -> None:
    writer = slots(tmp_path)
    writer.save({"x": torch.tensor(1.0)})
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteLoss, match="became NaN or infinite"):
            writer.save({"x": torch.tensor(bad)})
    assert value(slots(tmp_path).load(pytest.fail)) == 1.0


def test_a_writing_that_fails_leaves_both_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = slots(tmp_path)
    for number in (1.0, 2.0):
        writer.save({"x": torch.tensor(number)})

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space"):
                writer.save({"x": torch.tensor(3.0)})
    assert value(slots(tmp_path).load(pytest.fail)) == 2.0
    writer.save({"x": torch.tensor(4.0)})
    assert sorted(value(checkpoints.read(file)) or 0 for file in tmp_path.iterdir()) == [2.0, 4.0]


def test_the_pace_of_checkpoints() -> None:
    pace = Pace(10, now=0)
    assert [pace.due(now) for now in (9.9, 10)] == [False, True]
    pace.saved(began=10, now=10.1)
    assert [pace.due(now) for now in (20, 20.1)] == [False, True]
    pace.saved(began=20, now=22)  # two seconds: twenty times as long passes before the next
    assert [pace.due(now) for now in (61.9, 62)] == [False, True]
    always = Pace(0, now=0)
    always.saved(began=0, now=5)
    assert always.due(5)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_broken_off_pass_over_the_data_goes_on_to_the_same_bytes(averaged: bool) -> None:
    network = build("convnet3", 3, 8, width=4).eval()
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(24) // 8
    batches = list(torch.arange(24).split(2))
    kept: dict[str, torch.Tensor] = {}

    class Break(Exception):
        pass

    def collect(first: int, stop: int, features_ND: torch.Tensor) -> dict[str, torch.Tensor]:
        sums = statistics.Sums(network, 3, torch.device("cpu"), averaged)
        if first:
            sums.restore(kept)

        def after(done: int, sums: statistics.Sums, landed: Callable[[], torch.Tensor]) -> None:
            if done == stop:
                landed()
                kept.update({name: tensor.clone() for name, tensor in sums.tensors().items()})
                raise Break

        found = statistics.collect(
            network, labels, batches, lambda lists: [images[one] for one in lists], 3, torch.device("cpu"), averaged,
            after, lambda *_: features_ND, first, sums,
        )  # fmt: skip
        return {**statistics.to_tensors(found), "features": found.features_ND}

    whole = collect(0, 1000, torch.zeros(24, 4))
    features_ND = torch.zeros(24, 4)
    with pytest.raises(Break):
        collect(0, 5, features_ND)
    resumed = collect(5, 1000, features_ND)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_barycenters_go_on_behind_those_that_are_solved() -> None:
    random = np.random.default_rng(0)
    features = [random.normal(size=(12, 3)) for _ in range(4)]
    arguments = ([lambda one=one: one for one in features], 2, "uniform", 5, 1e-7, 1, [1, 2, 3, 4])
    whole: list[barycenter.Barycenter] = []
    barycenter.solve_all(whole, *arguments)
    for threads in (1, 3):
        again: list[barycenter.Barycenter] = []
        barycenter.solve_all(again, *arguments, threads=threads)
        assert all(np.array_equal(one.points_KD, two.points_KD) for one, two in zip(whole, again, strict=True))
    counts: list[int] = []
    rest = whole[:2]
    barycenter.solve_all(rest, *arguments, after_class=lambda found: counts.append(len(found)))
    assert counts == [3, 4]
    assert all(np.array_equal(one.points_KD, two.points_KD) for one, two in zip(whole, rest, strict=True))


# --- memory -----------------------------------------------------------------------------------------------


def test_work_is_cut_to_what_fits_and_the_size_is_remembered() -> None:
    done: list[int] = []
    told: list[str] = []
    fitting: dict[str, int] = {}

    def work(part: slice) -> None:
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError("injected")
        done.extend(range(part.start, part.stop))

    memory.in_parts("stage", slice(5, 16), work, fitting, told.append)
    assert done == list(range(5, 16)), "each image once, in order"
    assert fitting == {"stage": 3}
    assert len(told) == 2
    memory.in_parts("stage", slice(0, 4), work, fitting, told.append)
    assert len(told) == 2, "what did not fit is not tried again"


def test_where_nothing_fits_the_error_says_so() -> None:
    def work(_part: slice) -> None:
        raise torch.OutOfMemoryError("injected")

    with pytest.raises(OutOfMemory, match="not even one image of relabel"):
        memory.in_parts("relabel", slice(0, 8), work, {}, lambda _message: None)


# --- faults by name ---------------------------------------------------------------------------------------


class AcceleratorError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left"), "DiskFull"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "DiskFull"),
        (OSError(errno.EFBIG, "File too large"), "DiskFull"),
        (OSError(errno.EIO, "Input/output error"), "StorageFailed"),
        (OSError(errno.ESTALE, "Stale file handle"), "StorageFailed"),
        (OSError(errno.EROFS, "Read-only file system"), "StorageFailed"),
        (OSError(errno.EMFILE, "Too many open files"), "RunFailure"),
        (MemoryError(), "OutOfMemory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "OutOfMemory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "OutOfMemory"),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), "DeviceFailed"),
        (RuntimeError("value cannot be converted to type float without overflow"), "NonFiniteLoss"),
        (DataError("x"), "DataError"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_faults_of_the_machine_have_names(run: rundir.RunDir, fault: Exception, kind: str) -> None:
    named = faults.named(fault, run)
    assert named is not None
    assert type(named).__name__ == kind
    assert named.message
    if not isinstance(fault, errors.EngineError | RuntimeError):
        assert f"wmdd-tui resume {run.id}" in named.remedy


def test_a_fault_of_the_program_has_none(run: rundir.RunDir) -> None:
    assert faults.named(KeyError("x"), run) is None
    assert faults.named(RuntimeError("shapes do not match"), run) is None


def test_a_run_directory_that_is_gone(run: rundir.RunDir) -> None:
    run.path.rename(run.path.with_name("away"))
    named = faults.named(FileNotFoundError(errno.ENOENT, "No such file"), run)
    assert named is not None
    assert "is gone" in named.message


# --- reading ----------------------------------------------------------------------------------------------


class Flaky(Split):
    """Fails some times with an error of the disk."""

    failures = 0

    def decode(self, _index: int, resolution: int) -> torch.Tensor:
        if Flaky.failures:
            Flaky.failures -= 1
            raise OSError(errno.EIO, "Input/output error")
        return torch.zeros(3, resolution, resolution, dtype=torch.uint8)


def test_a_reading_that_fails_for_a_moment_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(reading.time, "sleep", waited.append)
    split = Flaky([tmp_path / "x.png"], ["x.png"], [""], torch.zeros(1, dtype=torch.int64))
    Flaky.failures = 2
    assert reading.read_image(split, 8, 0).shape == (3, 8, 8)
    assert waited == list(reading.RETRY_SECONDS[:2])
    Flaky.failures = 100
    with pytest.raises(DataError, match=r"image x\.png cannot be read: Input/output error"):
        reading.read_image(split, 8, 0)
    assert len(waited) == 2 + len(reading.RETRY_SECONDS)
    gone = Flaky([tmp_path / "gone" / "x.png"], ["x.png"], [""], torch.zeros(1, dtype=torch.int64))
    with pytest.raises(DataVanished, match="is gone"):
        reading.read_image(gone, 8, 0)
    Flaky.failures = 0


def test_decoding_stops_when_asked(tmp_path: Path) -> None:
    split = Flaky([tmp_path] * 1000, ["x"] * 1000, [""] * 1000, torch.zeros(1000, dtype=torch.int64))
    done: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        raise errors.Stopped("asked")

    with pytest.raises(errors.Stopped):
        reading.decode_all(split, DataConfig(), progress)
    assert done == [reading.PROGRESS_IMAGES]


# --- telemetry --------------------------------------------------------------------------------------------


def test_lost_events_are_said_as_soon_as_the_disk_takes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = events.Writer(tmp_path / "events.jsonl")
    true_write = os.write
    broken = {"left": 3}

    def write(descriptor: int, data: bytes) -> int:
        if broken["left"]:
            broken["left"] -= 1
            if broken["left"] == 2:
                return true_write(descriptor, data[: len(data) // 2])  # cut short
            raise OSError(errno.ENOSPC, "No space left on device")
        return true_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    for number in range(5):
        writer.write(events.Log(message=str(number)))
    writer.close()
    messages = [event.message for event in events.read(tmp_path / "events.jsonl") if isinstance(event, events.Log)]
    assert messages == ["3", "3 events before this one were lost: No space left on device", "4"]


def test_names_that_are_no_unicode_are_written_escaped(tmp_path: Path) -> None:
    writer = events.Writer(tmp_path / "events.jsonl")
    writer.write(events.Hello(class_names=[os.fsdecode(b"\xff"), "a"]))
    writer.close()
    (found,) = events.read(tmp_path / "events.jsonl")
    assert isinstance(found, events.Hello)
    assert found.class_names == ["\\udcff", "a"]


# --- one engine a run directory ---------------------------------------------------------------------------


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)


@pytest.mark.usefixtures("without_flock")
def test_without_flock_a_claim_decides(run: rundir.RunDir) -> None:
    with rundir.hold_lock(run) as locked:
        assert not locked
        assert rundir.lock_held(run) is None, "readers go by the heartbeat"
        with pytest.raises(RunDirError, match="another engine is at work"), rundir.hold_lock(run):
            pytest.fail("two engines")
    assert not run.claim_file.exists()


@pytest.mark.usefixtures("without_flock")
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", json.dumps({"pid": 1, "start_ticks": -1}).encode()])
def test_a_claim_of_the_dead_or_torn_by_a_crash_is_taken_over(run: rundir.RunDir, content: bytes) -> None:
    run.claim_file.write_bytes(content)
    os.utime(run.claim_file, (0, 0))
    with rundir.hold_lock(run) as locked:
        assert not locked


@pytest.fixture
def elsewhere(run: rundir.RunDir) -> Iterator[Callable[[float], None]]:
    """Another host's engine gave its last sign so many seconds ago."""
    rundir.write_process(run, {})
    facts = json.loads(run.process_file.read_bytes()) | {"host": "elsewhere"}
    run.process_file.write_text(json.dumps(facts))
    writer = events.Writer(run.events_file)

    def beat(t: float) -> None:
        writer.write(events.Beat(t=t))

    yield beat
    writer.close()


def test_another_hosts_silence_is_waited_for_and_can_be_stopped(
    run: rundir.RunDir, elsewhere: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("engine.rundir.lock.time.time", lambda: now)
    elsewhere(now - rundir.STALL_SECONDS - 1)
    with rundir.hold_lock(run):
        pass
    elsewhere(now)
    with pytest.raises(errors.Stopped), rundir.hold_lock(run, lambda: True):
        pytest.fail("it may be alive")
    monkeypatch.setattr("engine.rundir.lock.time.sleep", lambda _seconds: elsewhere(now + 1))
    with pytest.raises(RunDirError, match="on host elsewhere"), rundir.hold_lock(run):
        pytest.fail("it is alive")


def test_beats_from_the_future_are_no_life_on_this_host(run: rundir.RunDir) -> None:
    rundir.write_process(run, {})
    writer = events.Writer(run.events_file)
    writer.write(events.Beat(t=5000.0))
    writer.close()
    assert rundir.read_signs(run, now=1000.0).beat_age == 4000.0
    facts = json.loads(run.process_file.read_bytes()) | {"host": "elsewhere"}
    run.process_file.write_text(json.dumps(facts))
    assert rundir.read_signs(run, now=1000.0).beat_age == 0.0, "another host's clock may differ"


def test_what_killed_processes_left_half_written_goes(run: rundir.RunDir) -> None:
    (run.checkpoints / ".x.ckpt.123.tmp").write_bytes(bytes(10))
    (run.images / "0").mkdir()
    (run.images / "0" / ".y.png.123.tmp").write_bytes(bytes(5))
    (run.images / "0" / "y.png").write_bytes(bytes(5))
    assert rundir.clear_partials(run.path, older_than=3600) == 0
    assert rundir.clear_partials(run.path) == 15
    assert not list(run.path.rglob("*.tmp"))
    assert (run.images / "0" / "y.png").is_file()
