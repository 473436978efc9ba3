"""What can be broken around an engine before it starts: disk, memory, clock, locks, host. Run in the engine's process.

A full disk is a true one where the run lies on a small file system of its own (``mount``): it is filled to the last
byte at the moment the engine opens a certain file for writing. Elsewhere the kernel's limit on file sizes takes its
place. Nothing of the engine is replaced for it: the moment is found by Python's audit events.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


def _on_open_for_writing(act: Callable[[str], None]) -> None:
    """Call ``act`` with the name of every file right before it is opened for writing."""
    busy = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if event != "open" or busy:
            return
        path, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) or any(letter in (mode or "") for letter in "wax+")
        if writes and isinstance(path, str | os.PathLike):
            busy = True
            try:
                act(Path(path).name)
            finally:
                busy = False

    sys.addaudithook(hook)


def _fill(mount: Path) -> None:
    with (mount / "ballast").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def full_disk(at: str, until: str = "", mount: str = "") -> None:
    """No byte can be written once a file whose name matches ``at`` is opened, until, for good, one of ``until`` is."""
    full = over = False
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def act(name: str) -> None:
        nonlocal full, over
        if not full and not over and fnmatch(name, at):
            full = True
            if mount:
                _fill(Path(mount))
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        elif full and until and fnmatch(name, until):
            full, over = False, True
            if mount:
                (Path(mount) / "ballast").unlink(missing_ok=True)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    _on_open_for_writing(act)


def signalled(at: str, number: int, nth: int = 1) -> None:
    """The process gets a signal at the ``nth`` opening of a file whose name matches ``at``."""
    count = 0

    def act(name: str) -> None:
        nonlocal count
        count += fnmatch(name, at)
        if count == nth and fnmatch(name, at):
            os.kill(os.getpid(), number)

    _on_open_for_writing(act)


def out_of_memory(above: int, training: bool) -> None:
    """The device cannot take more images at once: when a network trains, or when it only looks."""
    import torch

    from engine.models.convnet import ConvNet

    forward = ConvNet.forward

    def scarce(self: ConvNet, images_NCHW: torch.Tensor) -> torch.Tensor:
        if self.training == training and len(images_NCHW) > above:
            raise torch.OutOfMemoryError(f"injured: no room for {len(images_NCHW)} images")
        return forward(self, images_NCHW)

    ConvNet.forward = scarce  # type: ignore[method-assign]


def clock_jumps(at: str, seconds: float) -> None:
    """The wall clock is set when a file whose name matches ``at`` is opened."""
    true_time, offset = time.time, 0.0

    def act(name: str) -> None:
        nonlocal offset
        if fnmatch(name, at):
            offset = seconds

    _on_open_for_writing(act)
    time.time = lambda: true_time() + offset


def no_flock() -> None:
    """A file system without locks."""

    def refused(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    fcntl.flock = refused  # type: ignore[assignment]


def on_host(name: str) -> None:
    """Another machine."""
    socket.gethostname = lambda: name


def unprivileged() -> None:
    """A user whom file permissions hold back, where the tests run as root."""
    if os.geteuid() == 0:
        os.seteuid(65534)
