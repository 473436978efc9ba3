"""What telemetry costs recovery: one optimisation whose blocks of iterations are by turns with and without it.

With it: loss buffer, progress, events in the run's file. "Baseline" is with and "product" without: the ratio less one
is its share. Jitter hides so small a difference, so the time spent in telemetry's own calls is taken besides: on a CPU
exactly, on a GPU what the host takes to submit them. The thread of heartbeats is timed by itself, per beat.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import psutil
import torch

from benchmarks.figures import spread
from benchmarks.harness.comparison import compared
from benchmarks.harness.options import Options
from benchmarks.harness.problem import fresh_run
from benchmarks.harness.timing import Stopwatch, Timings, repeated
from benchmarks.stages.recover import WARM_UP_BLOCKS, Problem, problem, recipe_of
from engine import events
from engine.context import Context
from engine.losses import Terms
from engine.models.instrument import looking_into
from engine.optimise import optimise
from engine.telemetry import ROWS, LossBuffer, Nvml, read_memory

#: Repetitions for each one asked for: the effect is far below the jitter of one.
FOLD = 3


def measure(options: Options) -> dict[str, Any]:
    """Figures of an iteration with and without telemetry."""
    at = problem(options)
    with fresh_run(options, at.config) as ctx:
        return _figures(options, at, ctx)


def _figures(options: Options, at: Problem, ctx: Context) -> dict[str, Any]:
    block, pairs = options.iterations, FOLD * options.repeats
    recipe = recipe_of(at, block * (WARM_UP_BLOCKS + 2 * pairs))
    rows_RL = torch.zeros(ROWS, Terms.width(recipe.layers), device=options.device)
    buffer = LossBuffer(ctx.emit, at.chunk.index, rows_RL)
    total = len(recipe.lr_T)
    watch, timings, inside = Stopwatch(options.device), Timings(), list[float]()
    within = 0.0

    def after_step(iteration: int, *_: Any) -> None:
        nonlocal within
        done = iteration + 1
        turn = iteration // block - WARM_UP_BLOCKS
        on = turn < 0 or turn % 2 == 0
        if on:
            before = time.perf_counter()
            buffer.add(iteration)
            ctx.progress("recover", done, total, "iterations")
            within += time.perf_counter() - before
        if done % block:
            return
        seconds = watch.stop()
        if turn >= 0:
            (timings.baseline if on else timings.product).append(seconds)
            if on:
                inside.append(within / seconds)
        within = 0.0
        watch.start()

    with looking_into(at.network, at.data.resolution) as forward:
        watch.start()
        optimise(at.images_BCHW, forward, recipe, after_step=after_step, rows_RL=rows_RL)
    beat = repeated(lambda: _beat(ctx), options.repeats, torch.device("cpu"))
    images = len(at.chunk.labels_B)
    nothing = {"baseline": lambda: None, "product": lambda: None}
    found = compared(options, nothing, images * block, "image-iterations", timings)
    found.pop("where_time_goes", None)
    differences = [on / off - 1 for on, off in zip(timings.baseline, timings.product, strict=True)]
    return {
        **found,
        "sides": {"baseline": "with telemetry", "product": "without"},
        "share_by_difference": spread(differences, 5),
        "share_of_own_calls": spread(inside, 5),
        "share_of_heartbeats": round(median(beat) / at.config.run.beat_seconds, 6),
        "target": "< 1 % of an iteration",
    }


def _beat(ctx: Context) -> None:
    """What the thread of heartbeats does at each beat."""
    ctx.emit(events.Beat())
    ctx.emit(read_memory(ctx.device, psutil.Process(), Nvml(ctx.device)))
