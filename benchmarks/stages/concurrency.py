"""Small chunks side by side on one device against the same chunks one after the other, both by the product.

There is no plain baseline: "baseline" is the product with ``recover.concurrent = 1``. What it gains depends on how much
of the device one chunk leaves idle, so it is measured on chunks of one class of small images.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.harness.comparison import compared
from benchmarks.harness.options import Options
from benchmarks.harness.problem import dataset, fresh_run, settings, teacher
from benchmarks.stages.recover import judged
from engine.chunk_images import optimised
from engine.chunks import Chunk, plan_chunks
from engine.concurrency import chunks_at_once
from engine.config import RunConfig
from engine.data import Dataset
from engine.judges import Judge
from engine.models.instrument import multiplications


def recovered(options: Options, config: RunConfig, data: Dataset, judge: Judge, chunks: list[Chunk]) -> None:
    """All chunks, as a run does them."""
    with fresh_run(options, config) as ctx:
        for _chunk, _images in optimised(ctx, data, (judge,), chunks, chunks, "measurement", None):
            pass


def measure(options: Options) -> dict[str, Any]:
    """Figures of all chunks."""
    together = settings(options, recover={"iterations": options.iterations})
    alone = together.model_copy(update={"recover": together.recover.model_copy(update={"concurrent": 1})})
    data, network = dataset(options), teacher(options)
    judge = judged(options, data, network)
    chunks = plan_chunks(options.classes, options.ipc, together.recover.batch_size, "per-class")
    sides = {
        side: partial(recovered, options, config, data, judge, chunks)
        for side, config in (("baseline", alone), ("product", together))
    }
    each = multiplications(network, options.resolution) * len(chunks[0].labels_B)
    units = options.classes * options.ipc * options.iterations
    found = compared(options, sides, units, "image-iterations", brief=sides, brief_units=units)
    at_once = chunks_at_once(together, len(chunks), each, options.device.type == "cuda")
    return {**found, "chunks": len(chunks), "side_by_side": at_once, "target": "none"}
