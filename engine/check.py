"""Questions that need torch, asked of a subprocess by the app and the commands: ``check`` and ``doctor``.

Each prints one JSON object as the last line of stdout.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from engine import config, models, students
from engine.catalog import dataset_facts
from engine.compiling import missing
from engine.data import list_dataset, load_dataset
from engine.devices import computes_in_bf16
from engine.distributed.ranks import MASK, named_devices
from engine.effects import without_effect
from engine.errors import ConfigError, DataError, EngineError
from engine.givenset import fkd_epochs, read_given
from engine.models.checkpoint import load_teacher, member_config
from engine.models.instrument import bn_layers
from engine.report import versions
from engine.session import choose_device
from engine.verifier import load_verifier


def examine(settings: config.RunConfig) -> dict[str, Any]:
    """Facts of the data set, teacher and device of a configuration. Raises EngineError where one is unusable.

    Decodes nothing of a large set: facts come from the catalog; only the built-in digits are loaded.
    """
    names = named_devices(settings.run.devices, os.environ.get(MASK)) if settings.run.devices else [settings.run.device]
    # GPU-… and MIG-… can be asked for only by a process that sees nothing else.
    seen = [choose_device(name) for name in names if name.startswith(("auto", "c"))]
    device = seen[0] if seen else torch.device("cuda:0")
    if settings.data.dataset == "digits":
        dataset = load_dataset(settings.data, settings.seed, torch.device("cpu"))
        classes, train, val = len(dataset.class_names), len(dataset.train), len(dataset.val)
    elif settings.data.pseudo_labels:
        listing, kept, held, _ = list_dataset(settings.data, settings.seed)
        classes, train, val = len(listing.class_ids), len(kept.items), len(held.items)
    else:
        facts = dataset_facts(settings.data.dataset, settings.data.path)
        if facts.problem:
            named = "" if "data.path" in facts.problem else f"data.path = '{settings.data.path}': "
            raise ConfigError(named + facts.problem)
        classes, train, val = facts.classes, facts.train_images, facts.val_images
    _check_given(settings, classes)
    network = models.build_teacher(settings, classes)
    students.check(settings, classes)
    for entry in settings.teacher.committee:
        _check_member(member_config(settings, entry), classes)
    if settings.teacher.source != "train":
        network = load_teacher(settings, classes, torch.device("cpu"))
    load_verifier(settings, classes)
    return {
        "dataset": {"classes": classes, "train_images": train, "val_images": val},
        "teacher": {
            "arch": settings.teacher.arch,
            "parameters": sum(parameter.numel() for parameter in network.parameters()),
            "bn_layers": len(bn_layers(network)),
        },
        "device": str(device),
        "warnings": without_effect(settings),
    }


def _check_given(settings: config.RunConfig, classes: int) -> None:
    """Images and labels of others are there, and as many as the run wants. Raises DataError."""
    if settings.recover.objective != "given" or "recover" not in settings.stages:
        return
    given = read_given(Path(settings.recover.path))
    if (len(given.classes), given.ipc()) != (classes, settings.ipc):
        raise DataError(
            f"recover.path = '{settings.recover.path}' holds {given.ipc()} images of each of {len(given.classes)} "
            f"classes; ipc is {settings.ipc}, and the data set has {classes} classes",
            "set ipc, or take a set distilled from this data set",
        )
    if settings.relabel.storage == "fkd":
        fkd_epochs(Path(settings.relabel.path))


def _check_member(settings: config.RunConfig, classes: int) -> None:
    """A further teacher of the committee: it can be built, and its checkpoint fits. Raises InputError."""
    models.build_teacher(settings, classes)
    if settings.teacher.source != "train":
        load_teacher(settings, classes, torch.device("cpu"))


def check_stdin() -> int:
    """Read TOML from stdin, print whether it can run. Exit code 0 or 2."""
    try:
        answer = {"ok": True, **examine(config.from_toml(sys.stdin.read()))}
    except EngineError as error:
        print(json.dumps({"ok": False, "error": error.message, "remedy": error.remedy}))
        return error.exit_code
    print(json.dumps(answer))
    return 0


def doctor() -> int:
    """Print what PyTorch sees of this machine, and what the first device offers."""
    available = torch.cuda.is_available()
    devices = [
        torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count() if available else 0)
    ]
    first = torch.device("cuda" if devices else "cpu")
    print(
        json.dumps(
            {
                "versions": versions(),
                "cuda": available,
                "cuda_build": torch.version.cuda,
                "devices": [{"name": one.name, "memory": one.total_memory} for one in devices],
                "threads": torch.get_num_threads(),
                "bf16": computes_in_bf16("auto", first.type),
                "compiling": missing(first),
            }
        )
    )
    return 0
