"""Checkpoints that survive a crash while they are written: two slots, checksums, newest intact one wins.

A checkpoint is a safetensors file; its loop state (epoch, iteration, …) is JSON in the file's metadata. The file
is preceded by the SHA-256 of its content, so a torn or damaged file is recognised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from engine.errors import NonFiniteLoss
from engine.rundir import write_whole

DIGEST_BYTES = 32
SLOTS = ("a", "b")
#: What reading a damaged file may raise.
DAMAGE = (OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError)


@dataclass(frozen=True)
class Loaded:
    """Tensors and loop state of an intact checkpoint."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def pack(tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> bytes:
    """A checkpoint's bytes."""
    host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    body = safetensors.torch.save(host, metadata={"state": json.dumps(state)})
    return hashlib.sha256(body).digest() + body


def unpack(data: bytes) -> Loaded:
    """The inverse of ``pack``. Raises one of ``DAMAGE`` for anything else."""
    body = data[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != data[:DIGEST_BYTES]:
        raise ValueError("checksum does not match")
    header_bytes = int.from_bytes(body[:8], "little")
    state = json.loads(json.loads(body[8 : 8 + header_bytes])["__metadata__"]["state"])
    if not isinstance(state, dict):
        raise ValueError("it holds no loop state")
    return Loaded(safetensors.torch.load(body), state)


def write(path: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Write one checkpoint file, whole or not at all."""
    write_whole(path, pack(tensors, state))


def read(path: Path) -> Loaded:
    """Read one checkpoint file. Raises one of ``DAMAGE``, of which OSError where it cannot be read."""
    return unpack(path.read_bytes())


class Slots:
    """The last two checkpoints of one piece of work, written in turn.

    ``work`` identifies what determines the work: checkpoints of other work (an edited configuration, another
    teacher) are said and not used.
    """

    def __init__(self, folder: Path, name: str, work: str) -> None:
        self._paths = [folder / f"{name}.{slot}.ckpt" for slot in SLOTS]
        self._name = name
        self._work = work
        self._serial = 0

    def load(self, warn: Callable[[str], None]) -> Loaded | None:
        """The newest intact checkpoint; ``warn`` is told of a damaged one and of one that does not belong here."""
        found: list[tuple[int, Loaded]] = []
        for path in self._paths:
            try:
                loaded = read(path)
                serial = int(loaded.state["serial"])
            except FileNotFoundError:
                continue
            except DAMAGE as error:
                warn(f"checkpoint {path.name} is damaged ({error}); falling back to the one before it")
                continue
            if loaded.state.get("work") == self._work:
                found.append((serial, loaded))
            else:
                warn(f"checkpoint {path.name} is of other work than this run's and is not used")
        if not found:
            return None
        self._serial, newest = max(found, key=lambda one: one[0])
        return newest

    def save(self, tensors: dict[str, torch.Tensor], **state: Any) -> None:
        """Write over the older slot. Raises OSError, and NonFiniteLoss rather than keep what is not finite."""
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise NonFiniteLoss(
                    f"{self._name}: {name} became NaN or infinite",
                    "lower the learning rate of this stage; the last checkpoint before it is kept",
                )
        serial = self._serial + 1
        write(self._paths[serial % 2], tensors, {**state, "serial": serial, "work": self._work})
        self._serial = serial

    def clear(self) -> None:
        """Remove both, once the work they protect is done."""
        for path in self._paths:
            path.unlink(missing_ok=True)


def capture(network: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """A network and its optimiser's state as flat tensors."""
    tensors = {f"network/{name}": tensor for name, tensor in network.state_dict().items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{k}": v for k, v in values.items() if isinstance(v, torch.Tensor)}
    return tensors


def restore(network: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """The inverse of ``capture``, into objects built alike."""
    network.load_state_dict({k.removeprefix("network/"): v for k, v in tensors.items() if k.startswith("network/")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimiser/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    # A fused optimiser goes through a parameter and its state side by side, as they lie in memory.
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
