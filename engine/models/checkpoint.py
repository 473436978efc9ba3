"""Loading teachers and students: strict, and never executing anybody's pickle.

Accepted: torchvision state_dicts, the authors' ``{"model": state_dict, "args": Namespace, …}`` (key names mapped),
``{"state_dict": …}``, and safetensors files.
"""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import safetensors.torch
import torch
import torchvision
from torch import nn

from engine import config, rundir
from engine.errors import CheckpointError, InputError, RunDirError
from engine.models.instrument import classifier_layer
from engine.models.placement import on_device

PREFIXES = ("module.", "_orig_mod.")
#: How the names of torchvision's ResNets begin, the networks with a stem to choose.
RESNETS = ("resnet", "resnext", "wide_resnet")


def numpy_scalars() -> list[Any]:
    """For ``safe_globals``: exactly what NumPy scalars need, under NumPy's old and new module names."""
    import numpy._core.multiarray as multiarray

    dtypes = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "b1")]
    return [
        np.dtype,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
        *dtypes,
    ]


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as PyTorch's do, a ZIP archive or a pickle. Raises OSError.

    PyTorch tries others as tar archives of its first versions, for which it makes a folder.
    """
    with path.open("rb") as file:
        return file.read(2)[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint file, float32, with torchvision's key names. Raises CheckpointError."""
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"checkpoint {path} is empty (0 bytes)", "copy or download it again")
        if path.suffix == ".safetensors":
            content: object = safetensors.torch.load_file(path)
        else:
            if not is_torch_file(path):
                raise ValueError("it is no file of PyTorch")
            with torch.serialization.safe_globals([argparse.Namespace, *numpy_scalars()]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint file {path}", "check teacher.path") from None
    except IsADirectoryError:
        raise CheckpointError(f"checkpoint {path} is a folder", "name the file in it") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {path} is refused: it holds more than tensors and plain values ({first_line(error)})",
            "nothing of it was executed; save the state_dict alone",
        ) from None
    except CheckpointError:
        raise
    except Exception as error:  # reading damaged bytes may raise anything
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {first_line(error)}", "copy or download it again"
        ) from None
    return _state_dict(content, path)


def first_line(error: BaseException) -> str:
    """What an error of a library says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _state_dict(content: object, path: Path) -> dict[str, torch.Tensor]:
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path} holds no state_dict but {type(content).__name__}")
    state = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path} holds no state_dict: entry {str(key)[:60]!r} is no tensor")
        state[_plain_name(key)] = value.float() if value.is_floating_point() else value
    return state


def _plain_name(key: str) -> str:
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key.replace("downsample.conv.", "downsample.0.").replace("downsample.norm.", "downsample.1.")


def load_into(network: nn.Module, state: dict[str, torch.Tensor], path: Path, classes: int) -> None:
    """Load strictly. Raises CheckpointError naming the class count or the first keys and shapes that differ."""
    own = network.state_dict()
    last = next(name for name, module in network.named_modules() if module is classifier_layer(network))
    found = state.get(f"{last}.weight")
    if found is not None and found.shape[0] != classes:
        raise CheckpointError(
            f"checkpoint {path} is for {found.shape[0]} classes; the data set has {classes}",
            "take a teacher trained on this data set, or teacher.source = 'train'",
        )
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unexpected or shapes:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors missing (first: {missing[0]})")
        if unexpected:
            parts.append(f"{len(unexpected)} unexpected (first: {unexpected[0]})")
        if shapes:
            key = shapes[0]
            parts.append(
                f"{len(shapes)} of another shape (first: {key} {tuple(state[key].shape)}, "
                f"needed {tuple(own[key].shape)})"
            )
        raise CheckpointError(
            f"checkpoint {path} is not of this architecture: " + "; ".join(parts),
            "set teacher.arch, teacher.stem and teacher.width to those it was trained with",
        )
    network.load_state_dict({key: state.get(key, own[key]) for key in own})


def load_teacher(settings: config.RunConfig, classes: int, device: torch.device) -> nn.Module:
    """The teacher of ``teacher.source`` "torchvision", "checkpoint" or "run". Raises InputError subclasses."""
    from engine.models import build

    teacher = settings.teacher
    network = build(teacher.arch, classes, settings.data.resolution, teacher.stem, teacher.width)
    if teacher.source == "torchvision":
        path, state = Path(f"torchvision:{teacher.arch}:{teacher.weights}"), _torchvision_state(teacher)
    elif teacher.source == "checkpoint":
        path = Path(teacher.path)
        state = load_state(path)
    else:
        path = rundir.find(teacher.path).checkpoints / "teacher.safetensors"
        if not path.is_file():
            raise CheckpointError(f"run '{teacher.path}' has no teacher yet", "choose a run whose squeeze has finished")
        state = load_state(path)
    load_into(network, state, path, classes)
    return on_device(network, device)


def member_config(settings: config.RunConfig, entry: str) -> config.RunConfig:
    """The run's configuration with another network as its teacher: ``ARCH``, obtained as the run's own is, or
    ``ARCH=PATH`` of a checkpoint file or run; of the run's width, and where it is a ResNet of the run's stem.
    """
    arch, _, path = (part.strip() for part in entry.partition("="))
    stem = settings.teacher.stem if arch.startswith(RESNETS) else "auto"
    source = settings.teacher.source
    if path:
        source = "run" if _is_run(path) else "checkpoint"
    teacher = config.TeacherConfig(source=source, arch=arch, stem=stem, width=settings.teacher.width, path=path)
    return settings.model_copy(update={"teacher": teacher})


def _is_run(path: str) -> bool:
    if Path(path).expanduser().is_file():
        return False
    try:
        rundir.find(path)
    except RunDirError:
        return False
    return True


def _torchvision_state(teacher: config.TeacherConfig) -> dict[str, torch.Tensor]:
    try:
        every = torchvision.models.get_model_weights(teacher.arch)
    except ValueError:
        raise InputError(
            f"torchvision has no trained weights of {teacher.arch}",
            "take one of its own architectures, or teacher.source = 'checkpoint'",
        ) from None
    try:
        weights = every[teacher.weights]
    except KeyError:
        known = [member.name for member in every]
        raise InputError(
            f"teacher.weights = '{teacher.weights}': torchvision has no such weights for {teacher.arch}",
            f"use one of {', '.join(known)} or DEFAULT",
        ) from None
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"torchvision weights {weights} cannot be downloaded: {first_line(error)}",
            "download them elsewhere and use teacher.source = 'checkpoint'",
        ) from None


def save_safetensors(network: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Write a network's tensors, whole or not at all. Raises OSError.

    The facts are one JSON entry: safetensors writes several entries in random order, and equal runs must leave
    equal bytes.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    rundir.write_whole(path, safetensors.torch.save(tensors, metadata={"facts": json.dumps(metadata)}))
