"""Whether a run's outputs fit the disk, asked before any work."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from torch import nn

from engine.config import RunConfig
from engine.errors import RunDirError
from engine.models.instrument import bn_layers
from engine.rundir import RunDir
from engine.softlabels import BLOCK_BYTES

#: Checkpoints come in two slots, and a third is written before the older goes.
CHECKPOINTS = 3
#: A teacher or student with its optimiser's state: SGD keeps one copy of the weights, AdamW two.
COPIES = 3
#: Sums of the statistics of a class and channel: of the values, their squares, and variances within batches.
SUMS = 3
#: Events, previews, reports.
SLACK_BYTES = 4 << 20


def needed_bytes(config: RunConfig, classes: int, train_images: int, features: int, network: nn.Module) -> int:
    """Upper estimate of what a run writes: checkpoints, features, images (as if incompressible), soft labels.

    Checkpoints of a stage that go when it ends are counted as if they stayed.
    """
    wanted = set(config.stages)
    parameters = 4 * sum(tensor.numel() for tensor in network.state_dict().values())
    images = classes * config.ipc
    pixels = 3 * config.data.resolution * config.data.resolution
    total: int = SLACK_BYTES + CHECKPOINTS * COPIES * parameters
    if "statistics" in wanted:
        channels = sum(layer.num_features for _, layer in bn_layers(network))
        total += 4 * train_images * features + CHECKPOINTS * SUMS * 8 * classes * channels
    if "barycenter" in wanted and config.barycenter.weights != "none":
        total += (CHECKPOINTS + 1) * 8 * images * features
    if "recover" in wanted:
        chunk = max(config.recover.batch_size, config.ipc)
        total += CHECKPOINTS * 3 * 4 * pixels * min(images, chunk) + 2 * images * pixels
    if "relabel" in wanted and config.relabel.storage == "stored":
        labels = config.relabel.label_bytes(classes) * config.train.epochs * images
        total += labels + CHECKPOINTS * min(labels, max(BLOCK_BYTES, 2 * images * classes))
    return total


def free_bytes(run: RunDir) -> int:
    """What the file system of a run directory has free for this user. Raises OSError."""
    return shutil.disk_usage(run.path).free


def written_bytes(run: RunDir) -> int:
    """What a run has written so far."""
    total = 0
    for folder, _, names in os.walk(run.path):
        for name in names:
            with suppress(OSError):  # a request or a temporary file that went meanwhile
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def require_space(run: RunDir, needed: int) -> None:
    """Raises RunDirError where the file system of the run directory has less free, what is there already counted."""
    free = free_bytes(run)
    if free < needed - written_bytes(run):
        raise RunDirError(
            f"{run.path} lies on a file system with {size_text(free)} free; this run writes up to {size_text(needed)}",
            "free some space, set WMDD_HOME to a larger disk, or set relabel.storage = 'online'",
        )


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
