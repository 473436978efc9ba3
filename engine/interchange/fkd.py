"""Soft labels of others: FKD folders (``epoch_E/batch_B.tar``) as SRe2L, CDA, WMDD and this program write them.

A file is a list, pickled by PyTorch: coords (i/H, j/W, h/H, w/W) and flip of each image, partners within the batch, λ,
box, logits and, from WMDD, weights. It does not say which images: FKD's sampler does, over the order of ImageFolder.
Files are read by PyTorch's safe loader, which besides tensors builds NumPy scalars and nothing else.
Shapes: B images of a batch, N of the set, C classes.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from engine.augment import Views
from engine.errors import DataError
from engine.givenset import fkd_epochs
from engine.mixing import EpochPlan, fkd_order
from engine.models.checkpoint import first_line, is_torch_file, numpy_scalars
from engine.softlabels import SyntheticSet

#: How far a crop may lie from whole pixels: float32 coordinates of a few hundred pixels are nearer.
WHOLE = 0.01
AGAIN = "copy the label folder again"


@dataclass(frozen=True)
class Batch:
    """One file. ``partners_B`` is None without mixing, ``box`` (top, left, bottom, right) None without CutMix."""

    coords_B4: torch.Tensor
    flips_B: torch.Tensor
    partners_B: torch.Tensor | None
    lam: float
    box: tuple[int, int, int, int] | None
    logits_BC: torch.Tensor
    weights_B: torch.Tensor | None


def read_batch(path: Path) -> Batch:
    """Read one file without running anything of it. Raises DataError that names it."""
    try:
        if not is_torch_file(path):
            raise ValueError("it is no file of PyTorch")
        with torch.serialization.safe_globals(numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"no FKD label file {path}", AGAIN) from None
    except pickle.UnpicklingError as error:
        raise DataError(
            f"FKD label file {path} is refused: it holds more than tensors and plain values ({first_line(error)})",
            "nothing of it was executed; take labels from another source",
        ) from None
    except Exception as error:  # reading damaged bytes may raise anything
        raise DataError(f"FKD label file {path} cannot be read: {first_line(error)}", AGAIN) from None
    try:
        return _batch(content)
    except (TypeError, ValueError, RuntimeError, OverflowError, IndexError) as error:
        raise DataError(
            f"FKD label file {path} is of another structure: {first_line(error)}",
            "a file is a list of coords, flips, partners, λ, box, logits and perhaps weights",
        ) from None


def _batch(content: Any) -> Batch:
    """Check what a file holds. Raises ValueError and what conversions raise."""
    if not isinstance(content, list | tuple) or len(content) not in (6, 7):
        raise ValueError(f"it holds {type(content).__name__}, not a list of 6 or 7 values")
    coords, flips, partners, lam, box, logits = content[:6]
    logits_BC = _tensor(logits)
    if logits_BC.ndim != 2 or not logits_BC.is_floating_point() or 0 in logits_BC.shape:
        raise ValueError(f"logits have the shape {tuple(logits_BC.shape)}, not (images, classes)")
    count = len(logits_BC)
    coords_B4, flips_B = _tensor(coords).float(), _tensor(flips).bool()
    if coords_B4.shape != (count, 4) or flips_B.shape != (count,):
        raise ValueError(f"{count} logits, but coords {tuple(coords_B4.shape)} and flips {tuple(flips_B.shape)}")
    top, left, height, width = coords_B4.unbind(1)
    inside = (coords_B4 >= 0).all() and (height > 0).all() and (width > 0).all()
    if not bool(inside) or bool((top + height > 1 + WHOLE).any()) or bool((left + width > 1 + WHOLE).any()):
        raise ValueError("crops lie outside their images")
    if not bool(torch.isfinite(logits_BC).all()):
        raise ValueError("logits are NaN or infinite")
    partners_B = None
    if partners is not None:
        partners_B = _tensor(partners).long()
        if partners_B.shape != (count,) or not bool(((partners_B >= 0) & (partners_B < count)).all()):
            raise ValueError("partners are not images of the batch")
    share = 1.0 if lam is None else float(lam)
    if not 0 <= share <= 1:
        raise ValueError(f"λ = {share} is not between 0 and 1")
    weights_B = _tensor(content[6]).float() if len(content) == 7 and content[6] is not None else None
    if weights_B is not None and (weights_B.shape != (count,) or not bool((weights_B > 0).all())):
        raise ValueError("weights are not one positive number an image")
    return Batch(coords_B4, flips_B, partners_B, share, _box(box), logits_BC.half(), weights_B)


def _tensor(value: Any) -> torch.Tensor:
    """A tensor of what a loader's collate function may have left: a tensor, or a list of tensors or numbers."""
    if isinstance(value, torch.Tensor):
        # A view that repeats a few numbers is a small file that would take up all memory.
        if value.layout != torch.strided or value.untyped_storage().nbytes() < value.numel() * value.element_size():
            raise ValueError("a tensor is larger than what is stored of it")
        return value.detach()
    if isinstance(value, list | tuple) and value and all(isinstance(one, torch.Tensor) for one in value):
        return torch.stack(list(value))
    return torch.tensor(value)


def _box(box: Any) -> tuple[int, int, int, int] | None:
    if box is None:
        return None
    top, left, bottom, right = (int(side) for side in box)
    if not (0 <= top <= bottom and 0 <= left <= right):
        raise ValueError(f"the box {top, left, bottom, right} is none")
    return top, left, bottom, right


class FkdLabels:
    """The labels of a folder for one synthetic set: plans and logits by epoch, read when they are asked for.

    ``order`` gives the class by class position of each image in ImageFolder's order. Raises DataError where the
    folder does not fit the set.
    """

    def __init__(
        self, path: Path, order: Sequence[int], classes: int, size: int, epochs: int, warn: Callable[[str], None]
    ) -> None:
        self._path, self._order_N = path, torch.tensor(order, dtype=torch.int64)
        self._classes, self._size, self._warn = classes, size, warn
        self._read: tuple[int, EpochPlan, torch.Tensor, torch.Tensor | None] | None = None
        found = fkd_epochs(path)
        if found < epochs:
            raise DataError(
                f"FKD folder '{path}' has labels of {found} epochs, train.epochs is {epochs}",
                f"set train.epochs = {found}",
            )
        self._epoch(epochs - 1)
        self._epoch(0)

    def plan(self, epoch: int) -> EpochPlan:
        """Order, views and mixing of an epoch. Raises DataError."""
        return self._epoch(epoch)[1]

    def logits(self, epoch: int) -> torch.Tensor:
        """Logits (N, C) float16 in the order of the epoch's positions. Raises DataError."""
        return self._epoch(epoch)[2]

    def weigh(self, synthetic: SyntheticSet) -> SyntheticSet:
        """The set with the weights of the labels, where they have any."""
        weights_N = self._epoch(0)[3]
        return synthetic if weights_N is None else replace(synthetic, weights_N=weights_N, weighted=True)

    def votes(self) -> torch.Tensor:
        """Softmax of each image's logits of the first epoch, class by class (N, C) float64."""
        _, plan, logits_NC, _ = self._epoch(0)
        votes_NC = torch.zeros(logits_NC.shape, dtype=torch.float64)
        votes_NC[plan.order_N] = logits_NC.double().softmax(1)
        return votes_NC

    def _epoch(self, epoch: int) -> tuple[int, EpochPlan, torch.Tensor, torch.Tensor | None]:
        if self._read is None or self._read[0] != epoch:
            self._read = (epoch, *self._assemble(epoch))
        return self._read

    def _assemble(self, epoch: int) -> tuple[EpochPlan, torch.Tensor, torch.Tensor | None]:
        """Plan, logits and weights (by image) of an epoch from its files."""
        folder, count = self._path / f"epoch_{epoch}", len(self._order_N)
        batches: list[Batch] = []
        while sum(len(batch.logits_BC) for batch in batches) < count:
            batches.append(self._checked(folder / f"batch_{len(batches)}.tar", batches))
        held = sum(len(batch.logits_BC) for batch in batches)
        if held > count or (folder / f"batch_{len(batches)}.tar").exists():
            raise DataError(
                f"FKD folder {folder} labels more than the {count} images of the set",
                "take the labels of this very set",
            )
        order_N = self._order_N[fkd_order(count, epoch)]
        boxes_N4, flips_N = torch.zeros(count, 4), torch.zeros(count, dtype=torch.bool)
        lam_N, cuts_N4, partner_N = torch.ones(count), torch.zeros(count, 4, dtype=torch.int64), order_N.clone()
        weights_N = torch.ones(count) if batches[0].weights_B is not None else None
        start = 0
        for batch in batches:
            rows = slice(start, start + len(batch.logits_BC))
            members = order_N[rows]
            boxes_N4[members] = self._pixels(batch.coords_B4)
            flips_N[members] = batch.flips_B
            lam_N[rows] = batch.lam
            if batch.partners_B is not None:
                partner_N[rows] = members[batch.partners_B]
            if batch.box is not None:
                cuts_N4[rows] = torch.tensor(batch.box)
            if weights_N is not None and batch.weights_B is not None:
                weights_N[members] = batch.weights_B
            start = rows.stop
        views = Views(boxes_N4, flips_N, torch.zeros(count, 2, dtype=torch.int64))
        plan = EpochPlan(self._size, _mixing(batches[0]), order_N, views, partner_N, lam_N, cuts_N4)
        return plan, torch.cat([batch.logits_BC for batch in batches]), weights_N

    def _checked(self, path: Path, before: list[Batch]) -> Batch:
        batch = read_batch(path)
        if batch.logits_BC.shape[1] != self._classes:
            raise DataError(
                f"FKD label file {path} has logits of {batch.logits_BC.shape[1]} classes, the data set has "
                f"{self._classes}",
                "take labels of a teacher of this data set",
            )
        if batch.box is not None and max(batch.box) > self._size:
            raise DataError(
                f"FKD label file {path}: its box reaches to pixel {max(batch.box)}, images have {self._size}",
                "set data.resolution to the size that the labels were made at",
            )
        if before and (
            _mixing(before[0]) != _mixing(batch) or (before[0].weights_B is None) != (batch.weights_B is None)
        ):
            raise DataError(f"FKD label file {path} is mixed otherwise than the first of its epoch", AGAIN)
        return batch

    def _pixels(self, coords_B4: torch.Tensor) -> torch.Tensor:
        """Crops in pixels; whole ones, unless the labels were made of images of another size."""
        boxes_B4 = coords_B4 * self._size
        whole_B4 = boxes_B4.round()
        if bool(((boxes_B4 - whole_B4).abs() > WHOLE).any()):
            self._warn(
                f"the labels' crops are not of whole pixels at data.resolution = {self._size}: they were made of "
                "images of another size"
            )
            return boxes_B4
        return whole_B4


def _mixing(batch: Batch) -> Literal["cutmix", "mixup", "none"]:
    if batch.partners_B is None:
        return "none"
    return "mixup" if batch.box is None else "cutmix"
