"""Ranks without processes: who one is, which device is one's own, who does what, and how orders travel."""

from __future__ import annotations

import itertools
import random
import subprocess
from pathlib import Path

import pytest

from engine import config, devices, events, presets, rundir
from engine.control import POLL_SECONDS
from engine.distributed import control, planning, ranks, supervising
from engine.errors import ConfigError, DeviceFailed, NonFiniteLoss, RankLost
from wmdd_tui.cli.slurm import script
from wmdd_tui.store.following import read_view
from wmdd_tui.store.ranks import RankBook
from wmdd_tui.widgets.rank_rows import rank_lines


def section(*changes: str) -> config.RunSection:
    return config.override(presets.get("digits"), list(changes)).run


# --- plans ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 8, 64])
def test_a_plan_does_everything_once_and_balances_what_differs(count: int) -> None:
    costs = [random.Random(n).uniform(1, 5) for n in range(1000)]
    plan = planning.balanced(costs, count)
    assert sorted(itertools.chain(*plan)) == list(range(1000))
    assert all(shards == sorted(shards) for shards in plan)
    assert planning.imbalance(costs, plan) < 1.05
    assert planning.balanced(costs, count) == plan


def test_a_plan_of_less_work_than_ranks() -> None:
    assert planning.balanced([1.0, 2.0], 4) == [[1], [0], [], []]
    assert planning.balanced([], 2) == [[], []]
    assert planning.imbalance([], [[], []]) == 1.0


@pytest.mark.parametrize(("count", "least"), [(1, 8), (6, 8), (25, 8), (5005, 8), (10, 1), (1000, 1), (21841, 1)])
def test_shards_are_as_many_as_can_be_listed_and_hold_every_unit(count: int, least: int) -> None:
    shards = planning.ranges(count, least)
    assert [unit for shard in shards for unit in shard] == list(range(count))
    assert len(shards) <= planning.MOST_SHARDS
    assert all(len(shard) >= min(least, count) for shard in shards[:-1])


# --- who one is -------------------------------------------------------------------------------------------


def test_a_process_alone_is_no_rank() -> None:
    assert ranks.here({}) == ranks.ALONE
    assert ranks.here({"RANK": "0", "WORLD_SIZE": "1"}) == ranks.ALONE
    assert ranks.here({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == ranks.ALONE, "a batch script is no task of srun's"


def test_what_torchrun_says() -> None:
    environ = {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "x",
        "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_MAX_RESTARTS": "3",
    }  # fmt: skip
    assert ranks.here(environ) == ranks.Rank(5, 8, 1, 4, elastic=True, restarts=2, attempt=1)


def test_what_srun_says_is_told_to_torch() -> None:
    environ = {
        "SLURM_PROCID": "9", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
        "SLURM_STEP_NODELIST": "gpu[003-004]", "SLURM_JOB_ID": "123456",
    }  # fmt: skip
    assert ranks.here(environ) == ranks.Rank(9, 16, 1, 8)
    assert (environ["MASTER_ADDR"], environ["RANK"], environ["WORLD_SIZE"]) == ("gpu003", "9", "16")
    assert 1024 < int(environ["MASTER_PORT"]) < 65536


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu[003-006,9],login", "gpu003"), ("n1,n2", "n1"), ("single", "single"), ("a-b[7]", "a-b7"), ("", "")],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert ranks.first_host(nodes) == first


# --- devices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "local", "mask", "shown", "name"),
    [
        (("run.devices=0,1,2,3",), 2, None, "2", "cuda:0"),
        (("run.devices=0,1",), 1, "6,4", "4", "cuda:0"),
        (("run.devices=all",), 1, "MIG-a/1/0,MIG-b", "MIG-b", "cuda:0"),
        (('run.devices=["MIG-a/1/0", "GPU-b"]',), 0, "3", "MIG-a/1/0", "cuda:0"),
        (("run.devices=cpu,cpu",), 1, "0,1", "0,1", "cpu"),
        (("run.device=cpu",), 1, None, None, "cpu"),
        (("run.device=auto",), 1, "2,3", "3", "auto"),
        (("run.device=auto",), 3, "GPU-x", "GPU-x", "auto"),
        (("run.device=auto",), 1, "", "", "cpu"),
        (("run.device=cuda",), 1, None, "1", "cuda:0"),
    ],
)
def test_a_rank_sees_its_own_gpu_alone(
    changes: tuple[str, ...], local: int, mask: str | None, shown: str | None, name: str
) -> None:
    environ = {} if mask is None else {ranks.MASK: mask}
    assert ranks.own_device(section(*changes), ranks.Rank(local, 4, local, 4), environ) == name
    assert environ.get(ranks.MASK) == shown


def test_one_process_keeps_its_mask_unless_devices_name_one() -> None:
    environ = {ranks.MASK: "2,3"}
    assert ranks.own_device(section("run.device=cuda:1"), ranks.ALONE, environ) == "cuda:1"
    assert environ == {ranks.MASK: "2,3"}
    assert ranks.own_device(section("run.devices=MIG-x"), ranks.ALONE, environ) == "cuda:0"
    assert environ == {ranks.MASK: "MIG-x"}


@pytest.mark.parametrize(
    ("changes", "mask", "said"),
    [
        (("run.devices=0,1",), None, "this host has 4 ranks"),
        (("run.device=cuda:1",), None, "names one GPU for 4 ranks"),
        (("run.devices=0,1,2,7",), "0,1,2,3", "not among the 4 devices"),
    ],
)
def test_a_rank_without_a_device_is_said(changes: tuple[str, ...], mask: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ranks.own_device(section(*changes), ranks.Rank(3, 4, 3, 4), {} if mask is None else {ranks.MASK: mask})


def test_all_devices_where_there_are_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", list)
    with pytest.raises(ConfigError, match="shows no GPU"):
        ranks.named_devices(("all",), None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x", "no device"),
        ("0,0", "twice"),
        ("cpu,0", "CPU and GPUs"),
        ("all,1", "stands alone"),
    ],
)
def test_devices_that_cannot_be_together_are_refused(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        section(f"run.devices={value}")


# --- starting ---------------------------------------------------------------------------------------------


def test_hosts_are_passed_on_to_torchrun() -> None:
    nodes = supervising.checked_nodes("2", "head:29500", "1")
    assert supervising.read_nodes(nodes.arguments()) == nodes
    told = supervising.command(rundir.RunDir(Path("runs/r1")), nodes, 8)
    assert {"--nnodes=2", "--rdzv-endpoint=head:29500", "--nproc-per-node=8", "--rdzv-id=r1"} <= set(told)
    alone = supervising.command(rundir.RunDir(Path("r")), supervising.ALONE, 2)
    assert {"--standalone", "--local-addr=127.0.0.1"} <= set(alone)


@pytest.mark.parametrize(
    ("count", "endpoint", "number"), [("0", "", "0"), ("2", "", "0"), ("2", "h:1", "2"), ("x", "", "0")]
)
def test_hosts_that_cannot_be_are_refused(count: str, endpoint: str, number: str) -> None:
    with pytest.raises(ConfigError):
        supervising.checked_nodes(count, endpoint, number)


def test_the_exit_code_is_that_of_the_last_event() -> None:
    assert supervising.exit_code_of(events.End(status="finished")) == 0
    assert supervising.exit_code_of(events.End(status="stopped")) == 3
    assert supervising.exit_code_of(events.End(status="failed", error="ConfigError")) == 2
    assert supervising.exit_code_of(events.End(status="failed", error="ValueError")) == 1


def test_a_slurm_script_is_shell_and_says_what_was_asked(tmp_path: Path) -> None:
    run = rundir.create(presets.get("digits"), tmp_path / "runs with spaces")
    text = script(run, run.config(), 2, 8, 4, "12:00:00", "gpu", "", 120, 29400)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0
    for line in (
        "#SBATCH --nodes=2", "#SBATCH --gpus-per-node=8", "#SBATCH --requeue", "#SBATCH --signal=B:USR1@120",
        "#SBATCH --partition=gpu", "#SBATCH --cpus-per-task=32",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert "--nproc-per-node=8" in text
    assert "--account" not in text


# --- orders -----------------------------------------------------------------------------------------------


class Shelf:
    """A store in this process."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.held[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.held[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.held for key in keys)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[rundir.RunDir, list[control.GroupControl]]:
    """Two ranks of a run, which look as often as they are asked."""
    clock = itertools.count(1)
    monkeypatch.setattr("engine.control.time.monotonic", lambda: float(next(clock)) * POLL_SECONDS * 2)
    run, shelf = rundir.create(presets.get("digits"), tmp_path), Shelf()
    both = [control.GroupControl(run, ranks.Rank(number, 2, number, 2)) for number in (0, 1)]
    for one in both:
        one.join(shelf)
    return run, both


def test_a_request_is_heard_by_all(pair: tuple[rundir.RunDir, list[control.GroupControl]]) -> None:
    run, (first, second) = pair
    assert not first.interrupted()
    assert not second.interrupted()
    run.request("checkpoint-now")
    assert not first.interrupted()
    assert not second.interrupted()
    assert first.checkpoint_asked()
    assert second.checkpoint_asked()
    assert not second.interrupted()
    assert not second.checkpoint_asked(), "once for each request"
    run.request("pause")
    first.stop_asked()
    second.stop_asked()
    assert first.paused
    assert second.paused
    run.request("stop")
    assert first.interrupted()
    assert second.interrupted()
    assert first.stop_requested
    assert second.stop_requested


def test_a_failure_ends_all_with_its_reason(pair: tuple[rundir.RunDir, list[control.GroupControl]]) -> None:
    _, (first, second) = pair
    error = NonFiniteLoss("the loss became nan", "lower it")
    first.join(second._store or Shelf())
    second._rank = ranks.Rank(1, 2, 1, 2)
    failure = control.failure_of(error, error, ranks.Rank(1, 2, 1, 2))
    store = second._store
    assert store is not None
    store.set(control.FAILED, '{"rank":1,"error":"NonFiniteLoss","message":"m","remedy":"r","exit_code":1}')
    assert first.interrupted()
    assert second.interrupted()
    assert first.failure == second.failure
    assert (failure.rank, failure.error, failure.exit_code) == (1, "NonFiniteLoss", 1)


def test_what_is_worth_another_try() -> None:
    elastic, last = ranks.Rank(0, 2, elastic=True, restarts=1), ranks.Rank(0, 2, elastic=True, restarts=0)
    assert control.worth_another_try(RankLost("gone"), elastic)
    assert control.worth_another_try(DeviceFailed("gone"), elastic)
    assert not control.worth_another_try(NonFiniteLoss("nan"), elastic)
    assert not control.worth_another_try(RankLost("gone"), last)


# --- one view ---------------------------------------------------------------------------------------------


def record(run: rundir.RunDir, rank: int, found: list[events.Event]) -> None:
    writer = events.Writer(run.rank_events_file(rank), rank)
    for event in found:
        writer.write(event)
    writer.close()


def story(t: float, rate: float, chunk: int, seconds: int) -> list[events.Event]:
    begin: list[events.Event] = [
        events.Hello(t=t, chunks=4, iterations=100, ranks=3, device="cpu", pid=1),
        events.Stage(t=t, stage="recover", what="begin"),
    ]
    for second in range(seconds):
        done = int(rate * second)
        begin.append(events.Progress(t=t + second, stage="recover", done=done, total=200, unit="iterations"))
        begin.append(events.Iters(t=t + second, chunk=chunk, first=second, total=[1.0], ce=[1.0], feature=[0], bn=[0]))
    return begin


def test_the_ranks_of_a_run_are_one_view(tmp_path: Path) -> None:
    run = rundir.create(presets.get("digits"), tmp_path)
    for rank, (rate, seconds) in enumerate([(4, 50), (1, 50), (4, 5)]):
        record(run, rank, story(1e9, rate, rank, seconds))
    view = read_view(run)
    assert view.progress["recover"].total == 600
    assert view.progress["recover"].done == 4 * 49 + 49 + 4 * 4
    assert view.losses["total"].end == 205, "every rank's chunk stands in its place"
    assert [row.state for row in view.ranks.rows()] == ["working", "slow", "lost"]
    assert [row.chunk for row in view.ranks.rows()] == [0, 1, 2]
    assert any("rank 2" in alert for alert in view.alerts)
    text = "\n".join(rank_lines(view.ranks.rows()))
    assert "Ranks: 3, 1 working, 1 slow, 1 lost" in text


def test_a_run_of_one_process_has_no_ranks() -> None:
    book = RankBook()
    book.begin(events.Hello())
    book.take(events.Progress(stage="recover", done=1, total=2))
    assert book.rows() == []
    assert rank_lines(book.rows()) == []
