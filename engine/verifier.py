"""A second network that judges the images while they are made and when they are done, and has no part in them.

What SRe2L and CDA call a verifier: its top-1 tells whether images are recognised by a network they were not fitted to.
It sees them as they are, without a view. Shapes: B images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional

from engine import events
from engine.behind import on_host
from engine.chunks import Chunk
from engine.config import RunConfig, TeacherConfig
from engine.context import Context
from engine.data import Dataset, normalise
from engine.errors import ConfigError, EngineError, InputError
from engine.evaluate import evaluate
from engine.models import require_resolution
from engine.models.checkpoint import load_teacher, member_config
from engine.models.placement import on_device
from engine.starts import real_indices

FORWARD_BATCH = 256
#: What the published scripts' verifiers have.
WEIGHTS = "IMAGENET1K_V1"


def load_verifier(config: RunConfig, classes: int) -> nn.Module | None:
    """The network that ``recover.verifier`` names, frozen, on the CPU; None where there is none to be.

    Raises ConfigError for one that cannot be built or loaded, or is not of these classes or this resolution.
    """
    entry = config.recover.verifier.strip()
    if not entry or "recover" not in config.stages:
        return None
    arch, _, path = (part.strip() for part in entry.partition("="))
    try:
        if not arch or ("=" in entry and not path):
            raise InputError("an architecture and, behind '=', a checkpoint file or run are what names a verifier")
        settings = member_config(config, entry)
        if not path:
            teacher = TeacherConfig(source="torchvision", arch=arch, weights=WEIGHTS)
            settings = config.model_copy(update={"teacher": teacher})
        network = load_teacher(settings, classes, torch.device("cpu"))
        require_resolution(network, arch, config.data.resolution)
    except EngineError as error:
        raise ConfigError(
            f"recover.verifier = '{entry}': {error.message}",
            "name a network trained on these classes: ARCH=PATH of a checkpoint file or run, or one of torchvision's "
            "for ImageNet-1K; or leave recover.verifier empty",
        ) from None
    return network.eval().requires_grad_(False)


class Verifier:
    """A frozen network on the run's device, and the ways it is asked."""

    def __init__(self, ctx: Context, network: nn.Module) -> None:
        self._ctx = ctx
        self._network = on_device(network, ctx.device)
        self.name = ctx.config.recover.verifier.strip()

    def look(self, chunk: Chunk, done: int, images_BCHW: torch.Tensor) -> Callable[[], None]:
        """Judge the normalised images of a chunk after ``done`` iterations; what is returned tells of it.

        The host need not wait for the device until then. Raises OutOfMemory.
        """
        labels_B = chunk.labels_B.to(self._ctx.device, non_blocking=True)
        found = on_host(self._hits_and_loss(images_BCHW, labels_B))

        def tell() -> None:
            hits, loss = found().tolist()
            count = len(labels_B)
            self._ctx.emit(
                events.Metrics(
                    stage="verifier",
                    student=self.name.partition("=")[0].strip(),
                    epoch=done,
                    epochs=self._ctx.config.recover.iterations,
                    chunk=chunk.index,
                    loss=events.numbers([loss / count])[0],
                    top1=100 * hits / count,
                )
            )

        return tell

    def _hits_and_loss(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
        """How many images are recognised, and the sum of their cross-entropies, on the device."""
        sums = torch.zeros(2, device=self._ctx.device)

        def forward(rows: slice) -> None:
            logits = self._network(images_BCHW[rows])
            hits = (logits.argmax(1) == labels_B[rows]).sum()
            sums.add_(torch.stack([hits.float(), functional.cross_entropy(logits, labels_B[rows], reduction="sum")]))

        with torch.no_grad():
            for start in range(0, len(images_BCHW), FORWARD_BATCH):
                self._ctx.cut("verifier", slice(start, min(start + FORWARD_BATCH, len(images_BCHW))), forward)
        return sums

    def judge(
        self, dataset: Dataset, chunks: list[Chunk], images_of: Callable[[Chunk], torch.Tensor]
    ) -> dict[str, float]:
        """Top-1 in percent on the finished images, on as many random real photographs, and on the validation images.

        Raises Stopped, OutOfMemory, DataError.
        """
        seed = self._ctx.config.seed
        real = ((chunk, dataset.train.batch(real_indices(chunk, dataset.train.labels_N, seed))) for chunk in chunks)
        return {
            "top1": self._top1(dataset, ((chunk, images_of(chunk)) for chunk in chunks)),
            "random_real_top1": self._top1(dataset, real),
            "val_top1": evaluate(self._ctx, "recover", self._network, dataset.val, dataset.mean, dataset.std)[0],
        }

    def _top1(self, dataset: Dataset, sets: Iterable[tuple[Chunk, torch.Tensor]]) -> float:
        hits = count = 0.0
        for chunk, images_BCHW in sets:
            for index in torch.arange(len(images_BCHW)).split(FORWARD_BATCH):
                inputs = normalise(images_BCHW[index].to(self._ctx.device), dataset.mean, dataset.std)
                labels = chunk.labels_B[index].to(self._ctx.device)
                hits += float(self._hits_and_loss(inputs, labels)[0])
                count += len(index)
            self._ctx.stop_if_asked("recover")
        return 100 * hits / count
