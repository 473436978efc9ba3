"""Options of ``python -m benchmarks``: one table of sizes, each figure of which the command line can replace."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.errors import ConfigError

STAGES = ("recover", "statistics", "barycenter", "relabel", "train", "squeeze", "telemetry")
OTHERS = ("concurrency", "app", "peaks", "growth", "gpu")
FEWEST_REPEATS = 5

#: arch, resolution, classes, real images a class, IPC, batch, and how much one repetition does: iterations of recovery,
#: epochs of relabel, train and squeeze. ``full`` holds the sizes the targets are stated for, on a large GPU.
Row = tuple[str, int, int, int, int, int, int]
SIZES: dict[tuple[str, str], Row] = {
    ("recover", "small"): ("resnet18", 32, 2, 20, 10, 20, 3),
    ("recover", "full"): ("resnet18", 224, 10, 20, 10, 100, 20),
    ("concurrency", "small"): ("convnet3", 16, 8, 20, 5, 5, 10),
    ("concurrency", "full"): ("resnet18", 32, 32, 20, 10, 10, 100),
    ("statistics", "small"): ("resnet18", 32, 4, 25, 1, 100, 1),
    ("statistics", "full"): ("resnet18", 224, 10, 1000, 1, 100, 1),
    ("barycenter", "small"): ("resnet18", 32, 10, 300, 20, 0, 1),
    ("barycenter", "full"): ("resnet18", 224, 1000, 1300, 50, 0, 1),
    ("relabel", "small"): ("resnet18", 32, 10, 10, 4, 40, 2),
    ("relabel", "full"): ("resnet18", 224, 100, 10, 10, 100, 4),
    ("train", "small"): ("resnet18", 32, 10, 10, 4, 20, 5),
    ("train", "full"): ("resnet18", 224, 100, 10, 10, 100, 4),
    ("squeeze", "small"): ("resnet18", 32, 4, 12, 1, 24, 4),
    ("squeeze", "full"): ("resnet18", 224, 10, 512, 1, 256, 1),
    ("telemetry", "small"): ("convnet3", 16, 10, 20, 10, 100, 10),
    ("telemetry", "full"): ("resnet18", 224, 10, 20, 10, 100, 20),
}


@dataclass(frozen=True)
class Options:
    """What is measured. ``iterations`` is the work of one repetition; ``dims`` the size of a feature (barycenter)."""

    stage: str
    size: str
    device: torch.device
    repeats: int
    threads: int
    arch: str
    resolution: int
    classes: int
    images: int
    ipc: int
    batch: int
    iterations: int
    dims: int = 512
    features: Path | None = None
    source: str = "memory"
    workers: int = 0
    settings: tuple[str, ...] = ()
    seed: int = 0
    profile: bool = False
    out: Path | None = None
    json_only: bool = False
    seconds: float = 470.0
    only: tuple[str, ...] = ()

    def configuration(self) -> dict[str, object]:
        """The figures that determine what was measured."""
        names = ("size", "arch", "resolution", "classes", "images", "ipc", "batch", "iterations", "repeats", "seed")
        found: dict[str, object] = {name: getattr(self, name) for name in names}
        if self.stage == "barycenter":
            found["dims"] = self.dims
            if self.features is not None:  # they say how many and how large they are
                found |= {"features": self.features.name, "images": 0, "dims": 0}
        if self.stage == "growth":
            found["only"] = list(self.only)
        if self.stage == "statistics":
            found["source"] = self.source
        return found | {"workers": self.workers, "set": list(self.settings)}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure a plain baseline and the product, alternating in one process. The last line is JSON.",
    )
    top.add_argument(
        "stage",
        choices=(*STAGES, *OTHERS),
        help="what to measure; app: the dashboard's scripts; peaks: this machine's; growth: how cost grows with size; "
        "gpu: every row that needs a GPU",
    )
    top.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda or cuda:N")
    top.add_argument("--size", choices=("small", "full"), help="small: two CPU cores, under two minutes; full: a GPU")
    top.add_argument("--repeats", type=int, default=7, help="repetitions of each side, 5 or more; the median counts")
    top.add_argument("--threads", type=int, default=0, help="CPU threads; 0: as many as there are cores")
    top.add_argument("--arch", help="architecture of teacher and student")
    for name, text in (
        ("resolution", "height and width in pixels"),
        ("classes", "classes of the data"),
        ("images", "real images a class"),
        ("ipc", "synthetic images a class"),
        ("batch", "images optimised together, or of a step"),
        ("iterations", "work of one repetition: iterations or epochs"),
        ("dims", "size of a feature (barycenter)"),
    ):
        top.add_argument(f"--{name}", type=int, help=text)
    top.add_argument(
        "--source",
        choices=("memory", "jpeg"),
        default="memory",
        help="statistics: from decoded images in memory, or from JPEG files",
    )
    top.add_argument(
        "--features", type=Path, metavar="FILE",
        help="barycenter: a teacher's features in place of drawn ones, features-KEY.npy of the cache beside the runs",
    )  # fmt: skip
    top.add_argument("--workers", type=int, default=-1, help="processes of the baseline's loaders; -1: cores on a GPU")
    top.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
        help="an option of the product's configuration, such as recover.precision=fp32",
    )  # fmt: skip
    top.add_argument("--profile", action="store_true", help="also say which operations take the product's time")
    top.add_argument("--out", type=Path, help="folder for a result file whose name tells where it comes from")
    top.add_argument("--json-only", action="store_true", help="print nothing but the JSON line")
    top.add_argument("--seconds", type=float, default=470.0, help="gpu: time for all rows together")
    top.add_argument("--only", action="append", default=[], choices=STAGES[:-1], help="growth: this stage")
    return top


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options of a command line. Raises ConfigError; argparse itself ends with exit code 2 for what it refuses."""
    given = parser().parse_args(arguments)
    if given.repeats < FEWEST_REPEATS:
        raise ConfigError(
            f"--repeats {given.repeats} is too few for a median with a spread", f"give {FEWEST_REPEATS} or more"
        )
    device = _device(given.device, needs_gpu=given.stage == "gpu")
    size = given.size or ("full" if device.type == "cuda" else "small")
    arch, *numbers = SIZES.get((given.stage, size), SIZES["recover", size])
    names = ("resolution", "classes", "images", "ipc", "batch", "iterations")
    values = {}
    for name, default in (*zip(names, numbers, strict=True), ("dims", 512 if size == "full" else 128)):
        asked = getattr(given, name)
        if asked is not None and asked < 1:
            raise ConfigError(f"--{name} {asked} is not possible", f"give --{name} 1 or more")
        values[name] = default if asked is None else asked
    for name in ("threads", "workers"):
        if getattr(given, name) < (0 if name == "threads" else -1):
            raise ConfigError(f"--{name} {getattr(given, name)} is not possible", f"leave --{name} out, or give 1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = given.workers if given.workers >= 0 else (min(cores, 16) if device.type == "cuda" else 0)
    return Options(
        stage=given.stage,
        size=size,
        device=device,
        repeats=given.repeats,
        threads=given.threads or cores,
        arch=given.arch or arch,
        features=given.features,
        source=given.source,
        workers=workers,
        settings=tuple(given.settings),
        profile=given.profile,
        out=given.out,
        json_only=given.json_only,
        seconds=given.seconds,
        only=tuple(given.only),
        **values,
    )


def _device(name: str, needs_gpu: bool) -> torch.device:
    available = torch.cuda.is_available()
    if needs_gpu and (not available or name == "cpu"):
        raise ConfigError(
            "no GPU can be used here, and these rows are measured on one",
            "run `make bench-gpu` on a machine with a CUDA GPU; `python -m benchmarks STAGE --device cpu` needs none",
        )
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name} is no device to measure", "give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not available or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(f"--device {name} is not there: CUDA sees {torch.cuda.device_count()} GPUs", "give cpu")
    return device
