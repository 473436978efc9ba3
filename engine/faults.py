"""Faults of the machine by name: what the operating system or PyTorch raised, as one of our errors. Torch-free."""

from __future__ import annotations

import errno
import os

from engine.errors import (
    DeviceFailed,
    DiskFull,
    EngineError,
    NonFiniteLoss,
    OutOfMemory,
    RunFailure,
    StorageFailed,
)
from engine.rundir import RunDir

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
BROKEN = frozenset(
    {
        errno.EIO, errno.ESTALE, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EREMOTEIO,
        errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR,
    }
)  # fmt: skip
#: A reading that failed for one of these may well succeed a moment later.
TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EREMOTEIO})
HOST_MEMORY = ("can't allocate memory", "Cannot allocate memory", "bad allocation")
OVERFLOW = "without overflow"
DEVICE = ("CUDA error", "CUDA driver error", "cuDNN error", "NCCL error", "NVML")


def is_full(error: OSError) -> bool:
    """Whether a writing failed for lack of room: the disk, the user's quota, or the allowed file size."""
    return error.errno in FULL


def named(error: BaseException, run: RunDir) -> EngineError | None:
    """The deliberate error a fault amounts to; None for what can only be a fault of the program."""
    if isinstance(error, EngineError):
        return error
    resume = f"`wmdd-tui resume {run.id}`: what was done is kept"
    if isinstance(error, OSError):
        return _of_storage(error, run, resume)
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"the device's memory is used up: {text}", f"free some of it, then {resume}")
    if isinstance(error, RuntimeError) and OVERFLOW in text:
        return NonFiniteLoss(f"a step overflowed: {text}", "lower the learning rate of this stage")
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(w in text for w in HOST_MEMORY)):
        return OutOfMemory(
            f"this machine's memory is used up: {text}",
            f"end other programs or set data.storage = 'stream', then {resume}",
        )
    if isinstance(error, RuntimeError) and any(word in text for word in DEVICE):
        return DeviceFailed(
            f"the device failed: {text}", f"check it with `wmdd-tui doctor` and nvidia-smi, then {resume}"
        )
    return None


def _of_storage(error: OSError, run: RunDir, resume: str) -> EngineError | None:
    where = f" ({error.filename})" if error.filename else ""
    if not os.path.isdir(run.path):
        return StorageFailed(f"run directory {run.path} is gone: {error.strerror}", f"bring it back, then {resume}")
    if is_full(error):
        what = "the allowed file size is used up" if error.errno == errno.EFBIG else "the disk became full"
        return DiskFull(f"{what} at {run.path}{where}: {error.strerror}", f"free some space, then {resume}")
    if error.errno in BROKEN:
        return StorageFailed(f"the file system failed{where}: {error.strerror}", f"look at it, then {resume}")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return RunFailure(f"too many files are open{where}", f"raise `ulimit -n`, then {resume}")
    return None
