"""Estimates: counts against the engine's own, times learnt from recorded runs, warnings, and where they are shown."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from piloted import until
from textual.widgets import Input
from typer.testing import CliRunner

from engine import barycenter, events, models, presets, rundir
from engine.artifacts import Cache
from engine.checkpoints import pack
from engine.chunks import plan_chunks
from engine.config import RunConfig, override
from engine.data import load_dataset
from engine.models.instrument import bn_layers, classifier_layer
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp
from wmdd_tui.cli.commands import app as commands
from wmdd_tui.store import workload
from wmdd_tui.store.arch_costs import cost_of
from wmdd_tui.store.counts import DataCounts, data_counts, set_counts
from wmdd_tui.store.devices import Device
from wmdd_tui.store.estimate import Estimate, Machine, estimate, estimate_here
from wmdd_tui.store.measured import device_key, measured_runs, samples_of
from wmdd_tui.store.reusing import reusable
from wmdd_tui.store.space import Room, quota_left
from wmdd_tui.store.speed import Point, Sample, crossed, measured_deviation, predict, sample_of
from wmdd_tui.store.workload import DATA, START, loads_of
from wmdd_tui.widgets.plan import brief, grave, table

CPU = Device("cpu", "cpu", "2 cores", 8 << 30, 16 << 30)
GPU = Device("cuda:0", "cuda:0", "a card", 8 << 30, 16 << 30)
DIGITS = DataCounts(10, 1438, 359, 64)
HOST = "a host"


def configured(*changes: str, preset: str = "digits") -> RunConfig:
    return override(presets.get(preset), list(changes))


def machine(device: Device = CPU, free: int = 1 << 40, **room: object) -> Machine:
    cuda = device is GPU
    return Machine(device, cuda, GPU.title if cuda else f"cpu {HOST}", 2, Room(Path("/home"), free, **room))  # type: ignore[arg-type]


def base_seconds(config: RunConfig) -> dict[str, float]:
    """What the shipped rates say, by stage."""
    return {stage.stage: stage.seconds or 0.0 for stage in estimate(config, DIGITS, machine()).stages}


def record(
    config: RunConfig,
    seconds: dict[str, float],
    device: str = "cpu, 2 threads",
    share: float = 0.9,
    cached: tuple[str, ...] = (),
    pause: str = "",
    resume_in: str = "",
    peak: int = 1 << 30,
) -> RunDir:
    """A run whose stages took given seconds, as its engine would have recorded them."""
    run = rundir.create(config)
    run.process_file.write_text(json.dumps({"host": HOST}))
    writer = events.Writer(run.events_file)
    clock = 1000.0
    hello = events.Hello(classes=10, device=device)

    def write(event: events.Event) -> None:
        event.t = clock
        writer.write(event)

    write(events.Beat())
    clock += seconds.get(DATA, 0.5)
    write(events.Progress(stage=DATA, done=1797, total=1797))
    write(hello)
    for stage in [name for name in seconds if name not in (START, DATA)]:
        write(events.Stage(stage=stage, what="begin"))
        if stage == resume_in:
            write(events.Hello(classes=10, device=device, resumed=True))
            write(events.Stage(stage=stage, what="begin"))
        write(events.Beat(paused=stage == pause))
        write(events.Memory(rss=peak, cpu_percent=share * 200))
        if stage == "statistics":
            write(events.Progress(stage=stage, done=1438, total=1438))
        clock += seconds[stage]
        write(events.Stage(stage=stage, what="end", seconds=seconds[stage], cached=stage in cached))
    write(events.End(status="finished", seconds=sum(seconds.values())))
    writer.close()
    return run


# --- counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "resolution", "stem"), [("convnet4", 32, "auto"), ("resnet18", 32, "auto"), ("resnet18", 64, "standard")]
)
def test_costs_are_those_of_the_network(arch: str, resolution: int, stem: str) -> None:
    network = models.build(arch, 7, resolution, stem, 16)
    layers = [layer for _, layer in bn_layers(network)]
    elements: list[int] = []
    for layer in layers:
        layer.register_forward_hook(lambda _module, _inputs, output: elements.append(output.numel()))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, resolution, resolution))
    cost = cost_of(arch, resolution, 16, stem, 7)
    assert cost is not None
    assert cost.parameters == sum(tensor.numel() for tensor in network.parameters())
    assert cost.features == classifier_layer(network).in_features
    assert (cost.channels, cost.layers) == (sum(layer.num_features for layer in layers), len(layers))
    assert cost.elements == pytest.approx(sum(elements), rel=0.01)
    assert cost.largest == max(elements)


def test_an_architecture_outside_the_table_has_no_cost() -> None:
    assert cost_of("resnext50_32x4d", 64, 64, "auto", 10) is None


@pytest.mark.parametrize("changes", [(), ("data.val_fraction=0.5",), ("data.max_per_class=30", "seed=3")])
def test_images_are_counted_as_the_engine_splits_them(changes: tuple[str, ...]) -> None:
    config = configured(*changes)
    dataset = load_dataset(config.data, config.seed, torch.device("cpu"))
    counts = data_counts(config.data)
    assert counts is not None
    assert (counts.classes, counts.train, counts.val) == (10, len(dataset.train), len(dataset.val))


@pytest.mark.parametrize("classes", [1, 7, 10, 103])
@pytest.mark.parametrize("ipc", [1, 9, 50, 120])
@pytest.mark.parametrize("chunk", ["per-class", "across-classes"])
def test_chunks_are_counted_as_the_engine_plans_them(classes: int, ipc: int, chunk: str) -> None:
    preset = "digits" if chunk == "per-class" else "digits-sre2l"
    counts = set_counts(configured(f"ipc={ipc}", preset=preset), classes)
    planned = plan_chunks(classes, ipc, 100, chunk)
    assert (counts.images, counts.chunks) == (classes * ipc, len(planned))
    assert counts.chunk_images == max(len(one.labels_B) for one in planned)


def test_stages_that_do_nothing_are_left_out() -> None:
    stages = [load.stage for load in loads_of(configured(preset="digits-sre2l"), DIGITS, False, True)]
    assert "barycenter" not in stages
    hard = loads_of(configured("train.labels=hard", "run.until=relabel"), DIGITS, False, True)
    assert [load.stage for load in hard][-1] == "recover"


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ("ipc=20", "recover"),
        ("recover.iterations=600", "recover"),
        ("recover.micro_batch=50", "recover"),
        ("squeeze.epochs=24", "squeeze"),
        ("train.epochs=240", "relabel"),
        ("train.epochs=240", "train"),
        ("data.resolution=32", "statistics"),
        ("teacher.width=128", "train"),
    ],
)
def test_more_to_do_takes_longer(change: str, stage: str) -> None:
    assert base_seconds(configured(change))[stage] > 1.2 * base_seconds(configured())[stage]


def test_looking_at_patches_takes_time_where_it_is_done() -> None:
    many = ["recover.init=patches", "recover.patch_photos=0", "recover.patch_crops=100"]
    assert base_seconds(configured(*many))["recover"] > 1.2 * base_seconds(configured())["recover"]
    control = base_seconds(configured("recover.objective=real"))["recover"]
    assert base_seconds(configured(*many, "recover.objective=real"))["recover"] == control


def test_micro_batches_spare_memory() -> None:
    whole, micro = (
        next(load for load in loads_of(configured(*changes), DIGITS, False, True) if load.stage == "recover")
        for changes in ((), ("recover.micro_batch=10",))
    )
    assert micro.memory < whole.memory / 2


@pytest.mark.parametrize("cuda", [False, True])
def test_chunks_side_by_side_take_memory(cuda: bool) -> None:
    one, four = (
        next(load for load in loads_of(configured(*changes), DIGITS, cuda, True) if load.stage == "recover")
        for changes in (
            ("recover.batch_size=10", "recover.concurrent=1"), ("recover.batch_size=10", "recover.concurrent=4")
        )
    )  # fmt: skip
    assert (3 if cuda else 1) * one.memory < four.memory < 4 * one.memory
    assert four.checkpoint == 4 * one.checkpoint


# --- times -------------------------------------------------------------------------------------------------


def point(stage: str, base: float = 10.0, place: float = 15.0) -> Point:
    return Point(stage, (place, 5.0, 0.7), base)


def test_one_run_tells_how_fast_a_device_is() -> None:
    nothing = predict([point("recover")], [])
    assert nothing.seconds == (10.0,)
    slow = predict([point("recover")], [Sample("a", point("squeeze"), 30.0, 0.01)])
    assert 20 < slow.seconds[0] < 31
    assert slow.deviation < 0.6 * nothing.deviation


def test_alike_stages_weigh_most() -> None:
    samples = [Sample("a", point("recover"), 20.0, 0.01), Sample("b", point("recover", place=25.0), 10.0, 0.01)]
    near, far = (predict([point("recover", place=place)], samples).seconds[0] for place in (15.5, 24.5))
    assert near > 1.2 * far


def test_a_disturbed_measurement_counts_for_less() -> None:
    others = [(point("recover"), 0.9)]
    quiet = sample_of("a", point("recover"), 10.0, 0.9, others)
    disturbed = sample_of("b", point("recover"), 30.0, 0.3, others)
    assert quiet.seconds == pytest.approx(10.0)
    assert disturbed.seconds == pytest.approx(10.0)
    assert disturbed.noise > 10 * quiet.noise
    assert sample_of("c", point("recover", place=30.0), 30.0, 0.3, others).seconds == pytest.approx(30.0)


def test_the_error_is_measured_by_predicting_each_run_from_the_others() -> None:
    def samples(factors: list[float]) -> list[Sample]:
        return [
            Sample(str(run), point(stage), 10.0 * factor, 0.01)
            for run, factor in enumerate(factors)
            for stage in ("squeeze", "recover", "train")
        ]

    assert measured_deviation(samples([2.0, 2.0])) is None
    steady, scattered = measured_deviation(samples([2.0] * 4)), measured_deviation(samples([1.0, 4.0, 1.0, 4.0]))
    assert steady is not None
    assert scattered is not None
    assert steady < 0.05 < 0.5 < scattered
    uneven = samples([1.0, 4.0, 2.0])
    predicted, measured, _ = crossed(uneven)["1"]
    own, others = uneven[3:6], [*uneven[:3], *uneven[6:]]
    assert predicted == pytest.approx(predict([sample.point for sample in own], others).total)
    assert measured == pytest.approx(120.0)


def test_runs_are_read_from_their_events() -> None:
    seconds = {START: 8.0, DATA: 2.0, "squeeze": 30.0, "statistics": 4.0, "recover": 50.0, "train": 20.0}
    run = record(configured(), seconds, cached=("squeeze",), pause="recover", peak=1234 << 20)
    with run.events_file.open("ab") as file:
        file.write(b'garbage\n{"kind":"memory","rss":-1}\n{"kind":"end' + bytes(3 << 20) + b'\n{"kind":"sta')
    (found,) = measured_runs()
    assert found.seconds == pytest.approx({START: 8.0, DATA: 2.0, "statistics": 4.0, "train": 20.0})
    assert found.cached == {"squeeze"}
    assert found.peak == 1234 << 20
    assert found.device == f"cpu {HOST}"
    assert (found.data.train, found.data.val) == (1438, 359)
    assert found.share["train"] == pytest.approx(0.9)


def test_a_stage_resumed_half_way_was_not_measured() -> None:
    record(configured(), {START: 8.0, "squeeze": 30.0, "recover": 50.0, "train": 20.0}, resume_in="recover")
    (found,) = measured_runs()
    assert set(found.seconds) == {DATA, "squeeze", "train"}
    assert found.peak == 0


def test_unreadable_runs_are_passed_over() -> None:
    record(configured(), {"squeeze": 30.0}).config_file.write_text("nonsense = [")
    record(configured(), {"squeeze": 30.0}).events_file.unlink()
    rundir.create(configured())
    with record(configured(), {"squeeze": 30.0}).events_file.open("ab") as file:
        file.write(b'{"kind":"hello","schema":99}\n')
    assert measured_runs() == []


@pytest.mark.parametrize(
    ("title", "key"),
    [("cpu, 2 threads", f"cpu {HOST}"), ("cuda:1 NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3")],
)
def test_devices_are_told_apart(title: str, key: str) -> None:
    assert device_key(title, HOST) == key


def test_estimates_are_learnt_from_finished_runs() -> None:
    config = configured()
    before = estimate(config, DIGITS, machine())
    assert before.seconds is not None
    for ipc in (5, 10, 20):
        other = configured(f"ipc={ipc}")
        record(other, {stage: 3 * seconds for stage, seconds in base_seconds(other).items()}, peak=2 << 30)
    found = measured_runs()
    after = estimate(config, DIGITS, machine(), found)
    assert after.seconds == pytest.approx(3 * before.seconds, rel=0.1)
    assert (after.runs, after.checked) == (3, True)
    assert after.seconds_error < 0.25 < before.seconds_error
    assert before.memory is not None
    assert after.memory is not None
    assert before.memory < after.memory < 2.1 * (1 << 30)
    elsewhere = Machine(CPU, False, "cpu another host", 2, Room(Path("/home"), 1 << 40))
    assert estimate(config, DIGITS, elsewhere, found).seconds == before.seconds
    assert len(samples_of(found, 2)) == 3 * 8


def test_a_card_without_a_measurement_has_no_time() -> None:
    config = configured("run.device=cuda:0")
    before = estimate(config, DIGITS, machine(GPU))
    assert before.seconds is None
    assert "no measurement of this device yet" in brief(before)[0]
    record(config, {"squeeze": 1.0, "recover": 2.0}, device=f"cuda:0 {GPU.title}")
    after = estimate(config, DIGITS, machine(GPU), measured_runs())
    assert after.seconds is not None
    assert after.runs == 1
    assert not after.checked


# --- reuse -------------------------------------------------------------------------------------------------


def keep(run: RunDir, kind: str) -> None:
    """The run's own copy of a stage's output and the cache's."""
    key = (kind * 32)[:32].replace("t", "7")
    data = pack({"x": torch.zeros(1)}, {"key": key})
    (run.checkpoints / f"{kind}.ckpt").write_bytes(data)
    Cache().keep(kind, key, data)


def test_stages_in_the_cache_take_no_time() -> None:
    run = record(configured(), {"squeeze": 30.0, "statistics": 4.0, "barycenter": 1.0})
    found = measured_runs()
    assert reusable(configured(), False, found) == frozenset()
    for kind in ("teacher", "statistics", "barycenter"):
        keep(run, kind)
    everything = frozenset({"squeeze", "statistics", "barycenter"})
    assert reusable(configured("recover.r_bn=1", "data.workers=1"), False, found) == everything
    assert reusable(configured("ipc=1"), False, found) == everything - {"barycenter"}
    assert reusable(configured("statistics.batch_size=9"), False, found) == {"squeeze"}
    for change in ("squeeze.epochs=3", "seed=1", "run.use_cache=false", "data.resolution=32"):
        assert reusable(configured(change), False, found) == frozenset()
    assert reusable(configured(), True, found) == frozenset()
    short = estimate(configured(), DIGITS, machine(), found, everything)
    assert [stage.seconds for stage in short.stages if stage.reused] == [0.0, 0.0, 0.0]
    assert "cached" in "\n".join(table(short))


# --- warnings and what is not known ------------------------------------------------------------------------


def test_too_little_disk_quota_and_memory_are_warned_of() -> None:
    config = configured("ipc=2000", "train.epochs=3000")
    assert estimate(config, DIGITS, machine()).warnings == ()
    assert "NOT ENOUGH DISK" in estimate(config, DIGITS, machine(free=1 << 20)).warnings[0]
    assert "YOUR QUOTA IS TOO SMALL" in estimate(config, DIGITS, machine(quota_left=1 << 20)).warnings[0]
    assert "home on a network disk" in estimate(config, DIGITS, machine(shared_home=True)).warnings[0]
    crowded = Device("cuda:0", "cuda:0", "a card", 1 << 20, 16 << 30)
    found = estimate(config, DIGITS, Machine(crowded, True, "a card", 2, Room(Path("/home"), 1 << 40)))
    assert "NOT ENOUGH GPU MEMORY" in found.warnings[0]
    assert "run.threads = 9 on 2 cores" in estimate(configured("run.threads=9"), DIGITS, machine()).warnings[0]


def test_the_remedy_is_that_of_the_largest_stage() -> None:
    tight = Device("cpu", "cpu", "2 cores", 1 << 30, 16 << 30)
    where = Machine(tight, False, "cpu", 2, Room(Path("/home"), 1 << 40))
    found = estimate(configured("recover.batch_size=2000", "ipc=200", "data.resolution=64"), DIGITS, where)
    assert "recover needs about" in found.warnings[0]
    assert "recover.micro_batch" in found.warnings[0]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("nas:/home  100  200  300  7 0 0", 200 * 1024),
        ("nas:/home  400*  200  300  6days 7 0 0", 0),
        ("nas:/home  100  200  0  7 0 0", 100 * 1024),
        ("nas:/home  100  0  0  7 0 0", None),
        ("nas:/data  100  200  300  7 0 0", None),
        ("nas:/home  none of this", None),
    ],
)
def test_quotas_are_read(line: str, left: int | None) -> None:
    report = f"Disk quotas for user someone (uid 1000):\n  Filesystem  blocks  quota  limit  grace  files\n  {line}\n"
    assert quota_left(report, "nas:/home") == left


@pytest.mark.parametrize("epochs", [120, 100_000])
def test_warnings_come_first_and_each_has_one_line(epochs: int) -> None:
    """On the narrowest screen the brief estimate has four rows."""
    more = ("ipc=1000000", f"train.epochs={epochs}", "run.threads=64")
    found = estimate(configured(*more), DIGITS, machine(free=20 << 30))
    lines = brief(found)
    assert lines[0].startswith("! NOT ENOUGH DISK: the run writes about ")
    assert lines[1].startswith("! NOT ENOUGH MEMORY: recover needs about ")
    assert lines[1].endswith("(and 1 more: f2)")
    assert [len(found.warnings), len(lines)] == [3, 4]
    assert max(map(len, lines)) <= 78
    assert len(grave(found)) == 2, "too many threads are no reason to ask before launching"


def test_one_warning_leaves_the_figures_whole_where_there_is_room() -> None:
    lines = brief(estimate(configured(), DIGITS, machine(free=1 << 10)))
    assert lines[0].startswith("! NOT ENOUGH DISK")
    assert "no measurement of this device yet" in lines[1]


def test_unknown_things_are_said() -> None:
    unknown_network = estimate(configured("teacher.arch=resnext50_32x4d", "data.resolution=32"), DIGITS, machine())
    assert unknown_network.seconds is None
    assert "costs of resnext50_32x4d are not known" in "\n".join(brief(unknown_network))
    nowhere = estimate_here(configured(preset="imagenette64-quick"), [CPU])
    assert nowhere.data is None
    assert "cannot be counted" in "\n".join(brief(nowhere))
    absent = estimate_here(configured("run.device=cuda:3"), [CPU])
    assert "no device 'cuda:3'" in "\n".join(table(absent))


@pytest.mark.parametrize(
    "changes",
    [
        ["ipc=1000000"],
        ["recover.iterations=1000000"],
        ["train.epochs=100000"],
        ["ipc=1000000", "recover.iterations=1000000", "train.epochs=100000", "squeeze.epochs=100000"],
    ],
)
def test_absurd_numbers_do_no_harm(changes: list[str]) -> None:
    found = estimate_here(configured(*changes), [CPU])
    assert brief(found)
    assert table(found)
    json.dumps(found.facts())


# --- where estimates are shown -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_form_shows_the_estimate_as_one_types(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wmdd_tui.screens.new_run.list_devices", lambda: [CPU])
    app = WmddApp("new")
    async with app.run_test(size=size) as pilot:
        plan, stages = app.screen.query_one("#plan"), app.screen.query_one("#stages")
        await until(pilot, lambda: "100 images in 1 chunk" in str(plan.content))  # type: ignore[attr-defined]
        assert "no measurement of this device yet" in str(plan.content)  # type: ignore[attr-defined]
        assert "recover" in str(stages.content)  # type: ignore[attr-defined]
        await until(pilot, lambda: plan.region.height >= 2)
        lines = plan.region.height
        assert plan.region.bottom <= size[1]
        usage = namedtuple("usage", "total used free")(1 << 40, 1 << 40, 1 << 10)
        monkeypatch.setattr("shutil.disk_usage", lambda _path: usage)
        app.screen.query_one("#field-ipc", Input).value = "30"
        await until(pilot, lambda: "300 images in 4 chunks" in str(plan.content))  # type: ignore[attr-defined]
        assert "NOT ENOUGH DISK" in str(plan.content)  # type: ignore[attr-defined]
        await until(pilot, lambda: plan.region.height > lines)
        assert plan.region.bottom <= size[1]


async def test_the_form_says_why_there_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Estimate:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("wmdd_tui.screens.new_run.estimate_here", refuse)
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        plan = app.screen.query_one("#plan")
        await until(pilot, lambda: "no estimate: " in str(plan.content))  # type: ignore[attr-defined]
        assert "Permission denied" in str(plan.content)  # type: ignore[attr-defined]


def test_config_check_prints_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {
        "ok": True, "dataset": {}, "teacher": {"arch": "convnet3", "parameters": 76938, "bn_layers": 3},
        "device": "cpu", "warnings": ["no effect, since so"],
    }  # fmt: skip
    monkeypatch.setattr("wmdd_tui.store.launch.check", lambda _config: dict(answer))
    arguments = ["config", "check", "--set", "run.device=cpu", "--set", "ipc=3"]
    plain = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert plain.exit_code == 0
    for text in ("76,938 parameters", "warning: no effect", "30 images in 1 chunk", "recover", "in all", "time within"):
        assert text in plain.stdout
    told = json.loads(CliRunner().invoke(commands, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert told["ok"]
    assert told["estimate"]["images"] == 30
    assert math.isfinite(told["estimate"]["seconds"])
    assert {stage["stage"] for stage in told["estimate"]["stages"]} >= {"squeeze", "recover", "train"}


def test_config_check_of_what_cannot_run_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "wmdd_tui.store.launch.check", lambda _config: {"ok": False, "error": "no such folder", "remedy": "make it"}
    )
    done = CliRunner().invoke(commands, ["config", "check"], catch_exceptions=False)
    assert done.exit_code == 2
    assert "no such folder" in done.stderr
    told = json.loads(CliRunner().invoke(commands, ["config", "check", "--json"], catch_exceptions=False).stdout)
    assert "estimate" not in told


def test_barycenters_are_counted_with_the_starts_that_the_engine_takes() -> None:
    assert (
        barycenter.STARTS["uniform"], barycenter.TINY, barycenter.LARGE,
    ) == (workload.STARTS, workload.TINY, workload.LARGE)  # fmt: skip


def test_estimating_needs_neither_torch_nor_a_screen() -> None:
    code = "import sys, wmdd_tui.store.estimate, wmdd_tui.cli.checking; print({'torch', 'textual'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
