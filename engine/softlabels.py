"""The synthetic set, and its soft labels as stored: logits alone, keyed by epoch and position.

Views and mixing are recomputed from the seed (`engine.mixing`), so no coordinates are stored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import safe_open

from engine.config import RelabelConfig
from engine.data import Dataset, ImageSource
from engine.errors import RunFailure
from engine.labelcoding import decode, encode
from engine.mixing import Decoded, Kept, Pictures
from engine.rundir import RunDir

BLOCK_BYTES = 64 << 20
BLOCK_EPOCHS = 20


@dataclass(frozen=True)
class SyntheticSet:
    """uint8 images (N, 3, H, W) on the CPU, classes (N,) int64, weights (N,) float32; class-major.

    With ``weighted`` the weights count in the student's loss, as they do where barycenters were given optimised ones.
    With ``real`` the set is not synthetic: its images are that source's, decoded when they are needed.
    """

    images_NCHW: torch.Tensor
    labels_N: torch.Tensor
    weights_N: torch.Tensor
    weighted: bool = False
    real: ImageSource | None = None


def pictures_of(
    synthetic: SyntheticSet, device: torch.device, mean: tuple[float, ...], std: tuple[float, ...]
) -> Pictures:
    """The images in normalised space, indexed by position: all on the device, or decoded batch by batch."""
    if synthetic.real is not None:
        return Decoded(synthetic.real, synthetic.images_NCHW.shape[-1], device, mean, std)
    return Kept(synthetic.images_NCHW.to(device), mean, std)


def real_set(dataset: Dataset) -> SyntheticSet:
    """All training images of a data set, with their labels, as what a student can be trained on."""
    none_NCHW = torch.empty(0, 3, dataset.resolution, dataset.resolution, dtype=torch.uint8)
    labels_N = dataset.train.labels_N
    return SyntheticSet(none_NCHW, labels_N, torch.ones(len(labels_N)), real=dataset.train)


def images_sha256(synthetic: SyntheticSet) -> str:
    """What the images of a synthetic set are known by."""
    return hashlib.sha256(synthetic.images_NCHW.numpy().tobytes()).hexdigest()


def blocks(epochs: int, images: int, classes: int) -> list[range]:
    """Epochs of each file: at most 20, and about 64 MB."""
    size = max(1, min(BLOCK_EPOCHS, BLOCK_BYTES // max(1, 2 * images * classes)))
    return [range(first, min(first + size, epochs)) for first in range(0, epochs, size)]


def block_path(run: RunDir, block: range) -> Path:
    return run.labels / f"epochs-{block.start:05d}-{block.stop - 1:05d}.safetensors"


def block_bytes(logits_ENC: torch.Tensor, key: str, config: RelabelConfig | None = None) -> bytes:
    """The file of a block: its logits as ``config`` wants them coded, the key of the work they belong to, and their
    checksum.

    All facts are one metadata entry: safetensors writes several entries in random order, and equal runs must leave
    equal bytes.
    """
    stored = {name: one.contiguous() for name, one in encode(logits_ENC, config or RelabelConfig()).items()}
    facts = {"key": key, "sha256": _sha256(stored), "shape": list(logits_ENC.shape)}
    return safetensors.torch.save(stored, metadata={"facts": json.dumps(facts)})


def _sha256(stored: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(stored):
        digest.update(stored[name].numpy().tobytes())
    return digest.hexdigest()


def _facts(metadata: dict[str, str] | None) -> dict[str, Any]:
    facts = json.loads((metadata or {}).get("facts", "null"))
    return facts if isinstance(facts, dict) else {}


def block_is_whole(path: Path, shape: tuple[int, int, int], key: str) -> bool:
    """Whether a file holds the block, undamaged: of this very work (``key``) and shape (epochs, images, classes)."""
    try:
        with safe_open(path, "pt") as file:
            facts = _facts(file.metadata())
            if facts.get("key") != key or facts.get("shape") != list(shape):
                return False
            names = file.keys()  # the file itself is not iterable
            return _sha256({name: file.get_tensor(name) for name in names}) == facts.get("sha256")
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError):
        return False


def read_soft_labels(run: RunDir, epoch: int) -> torch.Tensor:
    """Logits (N, C) float16 in the order of the epoch's positions. Raises RunFailure where they are missing."""
    for path in run.labels.glob("epochs-*.safetensors"):
        first, last = (int(part) for part in path.stem.split("-")[1:])
        if first <= epoch <= last:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                stored = {name: file.get_slice(name)[epoch - first] for name in names}
                shape = _facts(file.metadata()).get("shape") or stored["logits_ENC"].shape
                return decode(stored, int(shape[-1]))
    raise RunFailure(f"no soft labels of epoch {epoch} in {run.labels}", "resume the run: relabel makes them again")
