"""The teacher's features that a run left behind: of the real images, of the barycenters, of the synthetic images.

Files of the engine read without torch: ``checkpoints/features.npy`` (memory-mapped), ``checkpoints/statistics.ckpt``
and ``checkpoints/barycenter.ckpt`` (a SHA-256, then safetensors), ``report/image_features.npy``.
Shapes: N real images, M synthetic images, K points of a barycenter, D the length of a feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from engine import events
from engine.errors import InputError, RunDirError
from engine.rundir import RunDir
from wmdd_tui.names import as_name

Array = npt.NDArray[np.float64]
DIGEST_BYTES = 32


@dataclass(frozen=True)
class ClassFeatures:
    """One class: features of its real images (N, D), synthetic images (M, D) and barycenter (K, D; none without one).

    ``weights_M`` are the shares of the synthetic images, which are those of the barycenter's points; they add up to 1.
    """

    label: int
    name: str
    real_ND: Array
    images_MD: Array
    weights_M: Array
    points_KD: Array | None
    weights_K: Array | None


def read_features(run: RunDir, wanted: Sequence[str] = (), most: int = 10) -> list[ClassFeatures]:
    """The features of the classes ``wanted`` (numbers or names), by default of the first ``most``.

    Raises RunDirError where the run has not got that far, InputError for a class that is not there.
    """
    config = run.config()
    statistics = _tensors(run, "statistics", "the features of the real images")
    labels_N = statistics["labels_N"]
    real_ND = _array(run, run.checkpoints / "features.npy", "the features of the real images", mapped=True)
    images_MD = _array(run, run.report / "image_features.npy", "the features of the synthetic images")
    barycenter = {}
    if config.barycenter.weights != "none":
        barycenter = _tensors(run, "barycenter", "its barycenters")
    classes, ipc = int(labels_N.max()) + 1, config.ipc
    if len(images_MD) != classes * ipc or len(real_ND) != len(labels_N):
        raise RunDirError(
            f"run {run.id}: its files of features are not of one run",
            f"make them anew: wmdd-tui resume {run.id}",
        )
    names = _class_names(run, classes)
    found = []
    for label in chosen(wanted, names, most):
        points, weights = barycenter.get("points_CKD"), barycenter.get("weights_CK")
        own = images_MD[label * ipc : (label + 1) * ipc].astype(np.float64)
        uniform = np.full(ipc, 1 / ipc)
        mass = None if weights is None else weights[label].astype(np.float64) / weights[label].sum()
        found.append(
            ClassFeatures(
                label,
                names[label],
                real_ND[labels_N == label].astype(np.float64),
                own,
                mass if mass is not None and config.barycenter.weights == "optimized" else uniform,
                None if points is None else points[label].astype(np.float64),
                mass,
            )
        )
    return found


def chosen(wanted: Sequence[str], names: Sequence[str], most: int) -> list[int]:
    """Numbers of the classes meant by numbers, names, or "all"; the first ``most`` where none is. Raises InputError."""
    if not wanted:
        return list(range(min(most, len(names))))
    if list(wanted) == ["all"]:
        return list(range(len(names)))
    found = []
    for text in wanted:
        if text in names:
            found.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            found.append(int(text))
        else:
            raise InputError(
                f"class '{text}' is none of the run's {len(names)}",
                f"give numbers from 0 to {len(names) - 1}, names ({', '.join(names[:3])}, …) or all",
            )
    return list(dict.fromkeys(found))


def _class_names(run: RunDir, classes: int) -> list[str]:
    """Names as the engine said them in its first event; numbers where it did not."""
    try:
        hello = next((event for event in events.read(run.events_file) if isinstance(event, events.Hello)), None)
    except OSError:
        hello = None
    names = [as_name(name) for name in hello.class_names] if hello else []
    return names if len(names) == classes else [str(label) for label in range(classes)]


def _missing(run: RunDir, what: str) -> RunDirError:
    return RunDirError(
        f"run {run.id} has not kept {what}",
        f"let it finish recover, or measure them again: wmdd-tui resume {run.id}",
    )


def _tensors(run: RunDir, name: str, what: str) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a checkpoint file. Raises RunDirError where it is missing or damaged."""
    path = run.checkpoints / f"{name}.ckpt"
    try:
        data = path.read_bytes()
    except OSError:
        raise _missing(run, what) from None
    body = data[DIGEST_BYTES:]
    try:
        if hashlib.sha256(body).digest() != data[:DIGEST_BYTES]:
            raise ValueError("its checksum does not match")
        found: dict[str, npt.NDArray[Any]] = safetensors.numpy.load(body)
    except (ValueError, KeyError, safetensors.SafetensorError) as error:
        raise RunDirError(f"{path} is damaged: {error}", f"make it anew: wmdd-tui resume {run.id}") from None
    return found


def _array(run: RunDir, path: Path, what: str, mapped: bool = False) -> npt.NDArray[np.float32]:
    """A NumPy file of features. Raises RunDirError where it is missing or damaged."""
    try:
        found: npt.NDArray[np.float32] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise _missing(run, what) from None
    except (OSError, ValueError, EOFError) as error:
        raise RunDirError(f"{path} is damaged: {error}", f"make it anew: wmdd-tui resume {run.id}") from None
    if found.ndim != 2 or not np.issubdtype(found.dtype, np.floating):
        raise RunDirError(f"{path} holds no features", f"make it anew: wmdd-tui resume {run.id}")
    return found
