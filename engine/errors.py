"""Every exception the engine raises on purpose.

EngineError
├── InputError            the user's configuration, data or checkpoint; found before any work; exit code 2
│   ├── ConfigError       a key, value or combination of values
│   ├── DataError         a dataset folder, archive, image or label file
│   └── CheckpointError   a teacher or student checkpoint
├── RunDirError           a run directory that cannot be used (locked, unwritable, newer schema); exit code 2
├── RunFailure            a fault during the work; exit code 1; what was done is kept
│   ├── NonFiniteLoss     the loss became NaN or infinite
│   ├── OutOfMemory       the device or the host has too little memory
│   ├── DiskFull          no space, quota or allowed file size is left
│   ├── DataVanished      the data set was there at the start and is gone
│   ├── StorageFailed     a disk or network file system failed to read or write
│   ├── DeviceFailed      the GPU or its driver failed
│   └── RankLost          a rank of a group ended, or cannot be reached
└── Stopped               the user asked for it; exit code 3

Every message says what is wrong, which value, what is allowed and what to do; ``remedy`` holds the last part.
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all deliberate errors. ``exit_code`` is what the process ends with."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class InputError(EngineError):
    exit_code = 2


class ConfigError(InputError):
    """A configuration key, value or combination that cannot be used."""


class DataError(InputError):
    """A dataset, image or label file that cannot be used."""


class CheckpointError(InputError):
    """A checkpoint that cannot be loaded into the network it is meant for."""


class RunDirError(EngineError):
    exit_code = 2


class RunFailure(EngineError):
    """A fault while the run was working."""


class NonFiniteLoss(RunFailure):
    """The loss became NaN or infinite."""


class OutOfMemory(RunFailure):
    """The device or the host has too little memory for the requested work."""


class DiskFull(RunFailure):
    """No space, quota or allowed file size is left where the run writes."""


class DataVanished(RunFailure):
    """The data set was there at the start and is gone."""


class StorageFailed(RunFailure):
    """A disk or network file system failed to read or write."""


class DeviceFailed(RunFailure):
    """The GPU or its driver failed."""


class RankLost(RunFailure):
    """Another rank of the group ended or cannot be reached; the group may be started again."""


class Stopped(EngineError):
    """Not a fault: the run was asked to stop and its work is checkpointed."""

    exit_code = 3


def exit_code_of(name: str) -> int:
    """The exit code of an error by the name of its class, as an ``end`` event has it; 1 for any other name."""
    kind = globals().get(name)
    return kind.exit_code if isinstance(kind, type) and issubclass(kind, EngineError) else EngineError.exit_code
