"""Check the estimates of time, memory and disk against runs of the true engine.

    python benchmarks/estimates.py                  # runs the configurations below in a home of their own, 5 minutes
    python benchmarks/estimates.py --also ROOT …    # and takes finished runs of other homes' ``runs`` folders with them
    python benchmarks/estimates.py --only "ipc 1"   # runs those named alone

Each run is predicted from the others alone, as the form would predict it on a machine that has done those; beside it
stands what the shipped rates say without any measurement. At the end: rates fitted to these runs, for
``wmdd_tui/store/speed.py``, and one JSON line. Other jobs on the machine make the times worthless; the share of its
threads' time that the engine got is shown (a quiet machine gives 0.8 to 0.9); runs of other homes that got less than
0.75 are not judged for their time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import figures
import numpy as np
from scipy.optimize import nnls

from engine import presets, rundir
from engine.config import RunConfig, override
from wmdd_tui.store.devices import list_devices
from wmdd_tui.store.estimate import Estimate, Machine, estimate, machine_for
from wmdd_tui.store.launch import launch
from wmdd_tui.store.measured import Measured, measured_runs
from wmdd_tui.store.speed import CPU_RATES, FIXED_SECONDS
from wmdd_tui.store.workload import DATA, START, Work, loads_of

LIMIT = 0.25
#: Runs of other homes are judged where the engine got at least this share of its threads' time.
QUIET_SHARE = 0.75
SHORT = ["squeeze.epochs=3", "recover.iterations=80", "train.epochs=30"]
#: Sizes, networks and objectives, each small enough for seconds.
CONFIGURATIONS: dict[str, tuple[str, list[str]]] = {
    "digits, short": ("digits", SHORT),
    "ipc 30": ("digits", [*SHORT, "ipc=30", "recover.iterations=50", "train.epochs=15", "train.batch_size=50"]),
    "ipc 1": ("digits", [*SHORT, "ipc=1", "recover.iterations=200", "train.epochs=150", "train.batch_size=10"]),
    "sre2l, online": ("digits-sre2l", [*SHORT, "ipc=5", "relabel.storage=online", "recover.iterations=60"]),
    "32 px, width 32": (
        "digits",
        [*SHORT, "data.resolution=32", "teacher.width=32", "recover.iterations=40", "train.epochs=20"],
    ),
    "convnet4, 64 px": (
        "digits",
        [
            *SHORT, "data.resolution=64", "teacher.arch=convnet4", "teacher.width=24", "data.max_per_class=40",
            "recover.iterations=15", "train.epochs=10", "ipc=5",
        ],
    ),
    "resnet18, 64 px": (
        "digits",
        [
            *SHORT, "data.resolution=64", "teacher.arch=resnet18", "teacher.stem=standard", "data.max_per_class=40",
            "recover.iterations=25", "train.epochs=10", "ipc=5",
        ],
    ),
    "resnet18, small stem": (
        "digits",
        [
            "data.resolution=32", "teacher.arch=resnet18", "data.max_per_class=20", "data.val_fraction=0.05",
            "squeeze.epochs=2", "recover.iterations=15", "train.epochs=8", "ipc=2",
        ],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A run's prediction from the others, that of the shipped rates, and the run itself."""

    name: str
    run: Measured
    found: Estimate
    shipped: Estimate

    def seconds(self, of: Estimate) -> float:
        """Predicted seconds of the stages that were measured."""
        return sum(stage.seconds or 0.0 for stage in of.stages if stage.stage in self.run.seconds)

    @property
    def measured(self) -> float:
        return sum(self.run.seconds.values())

    @property
    def share(self) -> float:
        """The engine's part of its threads' time, over the stages."""
        return sum(self.run.share[stage] * seconds for stage, seconds in self.run.seconds.items()) / self.measured

    @property
    def disk(self) -> int:
        """Bytes in the run directory."""
        return sum(file.stat().st_size for file in self.run.directory.path.rglob("*") if file.is_file())


def carry_out(name: str, config: RunConfig) -> None:
    """One run to its end. Raises SystemExit where it fails."""
    run = rundir.create(config.model_copy(update={"name": name}))
    code = launch(run).wait()
    if code:
        told = run.console_file.read_text(errors="replace").strip()
        raise SystemExit(f"{name}: the engine ended with {code}: {told[-2000:]}")
    print(f"{name}: done", file=sys.stderr, flush=True)


def checks(found: Sequence[Measured], machine: Machine) -> list[Check]:
    """Each run predicted from the others, in the order they were made."""
    result = []
    for run in sorted(found, key=lambda one: one.directory.id):
        others = [other for other in found if other is not run]
        predicted = estimate(run.config, run.data, machine, others, run.cached)
        shipped = estimate(run.config, run.data, machine, (), run.cached)
        result.append(Check(run.config.name or run.directory.id, run, predicted, shipped))
    return result


def show(check: Check) -> None:
    """Predicted and measured figures of one run, stage by stage."""
    print(f"\n{check.name}  (engine's share of its threads: {check.share:.2f})")
    for stage in check.found.stages:
        if stage.stage in check.run.seconds:
            measured = check.run.seconds[stage.stage]
            print(f"  {stage.stage:11} {stage.seconds or 0:8.1f} s predicted {measured:8.1f} s measured")
    seconds, shipped = check.seconds(check.found), check.seconds(check.shipped)
    print(
        f"  {'in all':11} {seconds:8.1f} s predicted {check.measured:8.1f} s measured: "
        f"{relative(seconds, check.measured):+.0%} (shipped rates {relative(shipped, check.measured):+.0%})"
    )
    if check.run.peak:
        memory = check.found.memory or 0
        print(
            f"  {'memory':11} {memory / 2**20:8.0f} MiB          {check.run.peak / 2**20:8.0f} MiB: "
            f"{relative(memory, check.run.peak):+.0%}"
        )
    print(f"  {'disk':11} {(check.found.disk or 0) / 2**20:8.1f} MiB          {check.disk / 2**20:8.1f} MiB")


def relative(predicted: float, measured: float) -> float:
    """The error of a prediction, relative to what was measured."""
    return predicted / measured - 1


def fitted(found: Sequence[Measured]) -> Work:
    """Rates that fit the measured stages with the least relative errors, drawn a little towards the shipped ones."""
    rows, wanted = [], []
    for run in found:
        for load in loads_of(run.config, run.data, run.cuda, run.resident):
            seconds = run.seconds.get(load.stage, 0.0) - FIXED_SECONDS.get(load.stage, 0.0)
            if load.known and seconds > 0 and load.stage not in (START, DATA):
                weight = 1 / (0.05 * seconds + 0.25)
                rows.append([weight * amount * rate for amount, rate in zip(load.work, CPU_RATES, strict=True)])
                wanted.append(weight * seconds)
    units = len(CPU_RATES)
    factors = nnls(np.vstack([rows, np.eye(units)]), np.concatenate([wanted, np.ones(units)]))[0]
    return Work(*(float(rate * factor) for rate, factor in zip(CPU_RATES, factors, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="runs folders of other homes")
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, help="run these alone; none of them with no name")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WMDD_HOME"] = folder
        machine = machine_for("cpu", list_devices())
        for name, (preset, changes) in CONFIGURATIONS.items():
            if arguments.only is None or name in arguments.only:
                fixed = ["run.device=cpu", "run.use_cache=false", "run.beat_seconds=0.25"]
                carry_out(name, override(presets.get(preset), [*changes, *fixed]))
        own = measured_runs(rundir.runs_root())
        also = [run for root in arguments.also for run in measured_runs(root) if run.device == machine.key]
        found = checks([run for run in (*own, *also) if START in run.seconds], machine)
        if not found:
            raise SystemExit("no finished run to check")
        for check in found:
            show(check)
        disks = [relative(check.found.disk or 0, check.disk) for check in found]
        judged = [check for check in found if check.run in own or check.share >= QUIET_SHARE]
    rates = fitted([check.run for check in found])
    print("\nrates fitted to these runs, for CPU_RATES:")
    for unit, rate in rates._asdict().items():
        print(f"    {unit}={rate:.2g},  # now {getattr(CPU_RATES, unit):.2g}")
    for stage in (START, DATA):
        values = [check.run.seconds[stage] for check in found if stage in check.run.seconds]
        print(f"{stage} took {figures.spread(values)} s")
    times, shipped = (
        [relative(check.seconds(of(check)), check.measured) for check in judged]
        for of in (lambda check: check.found, lambda check: check.shipped)
    )
    memories = [relative(check.found.memory or 0, check.run.peak) for check in found if check.run.peak]
    figures.report(
        "estimates",
        load_before,
        runs=len(found),
        judged_for_time=len(judged),
        time_error=figures.spread(times) if judged else None,
        time_error_of_shipped_rates=figures.spread(shipped) if judged else None,
        memory_error=figures.spread(memories),
        disk_error=figures.spread(disks),
        engine_share=figures.spread([check.share for check in found]),
        limit=LIMIT,
        within_limit=bool(judged) and all(abs(error) <= LIMIT for error in (*times, *memories)),
    )


if __name__ == "__main__":
    main()
