"""Groups of ranks on the CPU (gloo): the same bytes as one process, whatever their number and whatever befalls them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
from nursery import PATIENCE, Engine, Injury, Nursery
from scenes import last_end, said, seen, small

from engine import checkpoints, events, rundir
from engine.chunks import plan_chunks
from engine.config import RunConfig
from engine.distributed.planning import balanced, chunk_cost, imbalance
from engine.pictures import image_path

#: Five chunks, four shards of statistics, ten barycenters and four blocks of soft labels to share out.
DIVISIBLE = [
    "recover.batch_size=4", "recover.iterations=40", "train.epochs=80", 'run.until="relabel"',
    "run.checkpoint_seconds=0.05", "recover.preview_every=0", "run.beat_seconds=0.2",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("group-home")


@pytest.fixture(autouse=True)
def one_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of this module know each other: they share a teacher."""
    monkeypatch.setenv("WMDD_HOME", str(home))


@pytest.fixture(scope="module")
def teacher(home: Path, nursery: Nursery) -> Path:
    """The one teacher that all runs are given."""
    os.environ["WMDD_HOME"] = str(home)
    run = rundir.create(small('run.until="squeeze"'))
    assert nursery.start(run.path).wait() == 0, run.console_file.read_text()
    return run.path


def divisible(teacher: Path, *changes: str) -> RunConfig:
    return small('teacher.source="run"', f"teacher.path={json.dumps(str(teacher))}", *DIVISIBLE, *changes)


@pytest.fixture(scope="module")
def alone(teacher: Path, nursery: Nursery) -> dict[str, str]:
    """What one process makes."""
    run = rundir.create(divisible(teacher))
    assert nursery.start(run.path).wait() == 0, run.console_file.read_text()
    return made(run)


def made(run: rundir.RunDir) -> dict[str, str]:
    """Digests of statistics, barycenters, images and soft labels, and W2² of every class."""
    files = [*run.images.rglob("*.png"), *run.labels.iterdir(), run.checkpoints / "features.npy"]
    found = {str(file.relative_to(run.path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    for name in ("statistics", "barycenter"):
        tensors = checkpoints.read(run.checkpoints / f"{name}.ckpt").tensors
        found |= {
            f"{name}/{key}": hashlib.sha256(value.numpy().tobytes()).hexdigest() for key, value in tensors.items()
        }
    report = json.loads(run.report_file.read_bytes())
    return found | {"w2": json.dumps(report["w2_per_class"]), "quality": json.dumps(report["quality"])}


def group(nursery: Nursery, run: rundir.RunDir, count: int, *injuries: Injury) -> list[Engine]:
    """The ranks of a run, as srun starts them: each for itself, with nobody to start them again.

    Injuries befall the last of them.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        nursery.start(
            run.path, injuries if rank == count - 1 else (), RANK=str(rank), LOCAL_RANK=str(rank), **common
        )
        for rank in range(count)
    ]  # fmt: skip


def of_rank(run: rundir.RunDir, rank: int) -> list[events.AnyEvent]:
    file = run.rank_events_file(rank)
    return list(events.read(file)) if file.exists() else []


def told(run: rundir.RunDir) -> str:
    return f"{run.console_file.read_text()}\n{said(run)}\n{seen(run)[-3:]}\n{of_rank(run, 1)[-3:]}"


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_ranks_makes_the_same_bytes(
    nursery: Nursery, teacher: Path, alone: dict[str, str], count: int
) -> None:
    run = rundir.create(divisible(teacher))
    assert [rank.wait() for rank in group(nursery, run, count)] == [0] * count, told(run)
    assert made(run) == alone
    recovered = [{one.chunk for one in of_rank(run, rank) if isinstance(one, events.Iters)} for rank in range(count)]
    assert sum(map(len, recovered)) == 5
    assert all(recovered), f"every rank recovered something: {recovered}"
    assert last_end(run).status == "finished"
    assert [file.name for file in run.checkpoints.glob("statistics-*")] == [], "shards go when they are merged"


def test_a_request_stops_all_ranks_and_one_process_goes_on(
    nursery: Nursery, teacher: Path, alone: dict[str, str]
) -> None:
    run = rundir.create(divisible(teacher))
    ranks = group(nursery, run, 2)
    ranks[0].until(lambda: any(isinstance(one, events.Iters) for one in of_rank(run, 1)))
    run.request("stop")
    assert [rank.wait() for rank in ranks] == [3, 3], told(run)
    assert last_end(run).status == "stopped"
    assert rundir.state_of(run) == "stopped"
    assert nursery.start(run.path).wait() == 0, told(run)
    assert made(run) == alone


def test_a_paused_group_stands_still_and_goes_on_to_the_same_bytes(
    nursery: Nursery, teacher: Path, alone: dict[str, str]
) -> None:
    run = rundir.create(divisible(teacher))
    ranks = group(nursery, run, 2)
    ranks[0].until(lambda: any(isinstance(one, events.Iters) for one in of_rank(run, 1)))
    run.request("pause")
    ranks[0].until(lambda: all(paused(run, rank) for rank in range(2)))
    assert rundir.state_of(run) == "paused"
    done = [count_of(run, rank) for rank in range(2)]
    beats = [len(of_rank(run, rank)) for rank in range(2)]
    ranks[0].until(lambda: all(len(of_rank(run, rank)) > beats[rank] + 2 for rank in range(2)))
    assert [count_of(run, rank) for rank in range(2)] == done, "iterations went on in a paused group"
    run.request("unpause")
    assert [rank.wait() for rank in ranks] == [0, 0], told(run)
    assert made(run) == alone


def paused(run: rundir.RunDir, rank: int) -> bool:
    """Whether the rank's newest beat says so."""
    beats = [one for one in of_rank(run, rank) if isinstance(one, events.Beat)]
    return bool(beats) and beats[-1].paused


def count_of(run: rundir.RunDir, rank: int) -> int:
    """Iterations that the rank has told of."""
    return sum(len(one.total) for one in of_rank(run, rank) if isinstance(one, events.Iters))


def test_a_rank_that_cannot_go_on_ends_all_with_its_reason(nursery: Nursery, teacher: Path) -> None:
    # Variances within batches of 20 images are averaged, so these cannot be cut to the five that fit.
    run = rundir.create(divisible(teacher, "statistics.variance=batch-averaged", "statistics.loading_batch=20"))
    injury: Injury = ("out_of_memory", {"above": 5, "training": False})
    assert [rank.wait() for rank in group(nursery, run, 2, injury)] == [1, 1], told(run)
    end = last_end(run)
    assert (end.status, end.error) == ("failed", "OutOfMemory"), end
    assert end.message.startswith("rank 1: "), end


def test_torchrun_starts_a_group_again_that_has_lost_a_rank(
    nursery: Nursery, teacher: Path, alone: dict[str, str]
) -> None:
    run = rundir.create(divisible(teacher, 'run.devices=["cpu", "cpu"]', "recover.iterations=40"))
    supervisor = nursery.start(run.path)
    supervisor.until(lambda: any(isinstance(one, events.Iters) for one in of_rank(run, 1)))
    victim = next(one.pid for one in of_rank(run, 1) if isinstance(one, events.Hello))
    os.kill(victim, signal.SIGKILL)
    assert rundir.state_of(run) == "running", "the supervisor holds the lock whatever becomes of a rank"
    assert supervisor.wait() == 0, told(run)
    assert made(run) == alone
    hellos = [one for one in of_rank(run, 1) if isinstance(one, events.Hello)]
    assert [one.ranks for one in hellos] == [2, 2]
    assert hellos[0].pid != hellos[1].pid
    ends = [one for one in seen(run) if isinstance(one, events.End)]
    assert [one.status for one in ends] == ["finished"], "a group that is started again has not ended"


def test_a_supervisor_takes_its_ranks_along_when_it_is_killed(nursery: Nursery, teacher: Path) -> None:
    run = rundir.create(divisible(teacher, 'run.devices=["cpu", "cpu"]', "recover.iterations=100000"))
    supervisor = nursery.start(run.path)
    supervisor.until(run.rank_events_file(1).exists)
    started = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(started) == 3, "torchrun and two ranks"
    supervisor.kill()
    assert psutil.wait_procs(started, PATIENCE)[1] == [], "a rank outlived its supervisor"


def test_a_teacher_trained_by_two_ranks_is_one_network_and_no_worse(nursery: Nursery) -> None:
    changes = ('run.until="squeeze"', "squeeze.epochs=12", "squeeze.batch_size=21", "data.max_per_class=40")
    single, shared = rundir.create(small(*changes)), rundir.create(small(*changes))
    assert nursery.start(single.path).wait() == 0, told(single)
    assert [rank.wait() for rank in group(nursery, shared, 2)] == [0, 0], told(shared)
    tops = [json.loads(run.report_file.read_bytes())["teacher_top1"] for run in (single, shared)]
    assert tops[1] > tops[0] - 10, tops


#: Two students on real images, which need no distillation.
STUDENTS = [
    'train.students=["convnet3", "convnet4"]', 'recover.objective="real"', 'run.until="train"', "train.epochs=8",
    "train.eval_every=4",
]  # fmt: skip


def students_of(run: rundir.RunDir) -> dict[str, str]:
    """Digests of the students' files, and the table of the report without its seconds."""
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in run.student.iterdir()}
    rows = json.loads(run.report_file.read_bytes())["students"]
    return found | {row.pop("arch"): json.dumps({**row, "seconds": 0}) for row in rows}


def test_each_rank_trains_a_student_as_one_process_would(nursery: Nursery, teacher: Path) -> None:
    single, shared = (rundir.create(divisible(teacher, *STUDENTS)) for _ in range(2))
    assert nursery.start(single.path).wait() == 0, told(single)
    assert [rank.wait() for rank in group(nursery, shared, 2)] == [0, 0], told(shared)
    assert students_of(shared) == students_of(single)
    assert len(students_of(single)) == 4, "two files and two rows"


def test_a_student_trained_by_all_ranks_is_no_worse(nursery: Nursery, teacher: Path) -> None:
    changes = (
        'train.images="real"', 'train.labels="hard"', 'run.until="train"', "train.epochs=20", "train.eval_every=20",
        "train.batch_size=21",
    )  # fmt: skip
    single = rundir.create(divisible(teacher, *changes))
    shared = rundir.create(divisible(teacher, *changes, 'run.student_on="all"'))
    assert nursery.start(single.path).wait() == 0, told(single)
    assert [rank.wait() for rank in group(nursery, shared, 2)] == [0, 0], told(shared)
    tops = [json.loads(run.report_file.read_bytes())["student_top1"] for run in (single, shared)]
    assert tops[1] > tops[0] - 10, tops
    assert tops[0] > 30, "three times what guessing gives"


def test_ten_thousand_classes_are_planned_and_listed_at_once(tmp_path: Path) -> None:
    """No training: the true planner and the true layout of files, with costs made up."""
    classes, ranks = 10_000, 8
    began = time.process_time()
    chunks = plan_chunks(classes, 1, 100, "per-class")
    costs = [chunk_cost(len(chunk.labels_B), 1000) * (1 + (37 * chunk.index % 11) / 20) for chunk in chunks]
    plan = balanced(costs, ranks)
    for shards in plan:
        for index in shards:
            for label, ordinal in zip(chunks[index].labels_B.tolist(), chunks[index].ordinals_B.tolist(), strict=True):
                path = image_path(tmp_path, f"n{label:08d}", label, ordinal, classes, 1)
                path.parent.mkdir()
                path.touch()
    listed = sorted(tmp_path.rglob("*.png"))
    seconds = time.process_time() - began
    assert len(listed) == classes
    assert [int(path.name[5:9]) for path in listed] == list(range(classes)), "names sort as numbers do"
    assert sorted(index for shards in plan for index in shards) == list(range(len(chunks)))
    assert imbalance(costs, plan) <= 1.05
    assert seconds < 5, "the limit that planning and listing are held to"
