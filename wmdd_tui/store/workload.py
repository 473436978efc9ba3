"""What each stage of a run computes, keeps in memory and writes, from its configuration and its data set's size.

Pure and torch-free: counts alone. What a count takes in seconds on a device is the business of `wmdd_tui.store.speed`.
Letters: B images of a batch, R pixels of a side, T and S the teacher's and the student's cost of one image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engine.concurrency import chunks_at_once
from engine.config import RunConfig
from wmdd_tui.store.arch_costs import Cost, cost_of
from wmdd_tui.store.counts import DataCounts, SetCounts, set_counts

#: Before the first stage: imports and set-up of the engine, then decoding of the images.
START, DATA = "start", "data"
#: How often a pass goes through the network, in forward passes: to the images, to the weights.
TO_IMAGES, TO_WEIGHTS = 2.0, 3.0
#: Patches a forward pass (as engine.starts has it).
PATCHES_AT_A_TIME = 64
#: Passes over the elements of BatchNorm layers: moments in recovery, and in the statistics (where they stay in caches).
MOMENTS, EXACT_MOMENTS = 2.0, 0.5
#: Elements that are kept for the backward pass, and copies of the largest layer in flight, both measured on CPU runs.
KEPT, IN_FLIGHT, IN_EVALUATION = 2.3, 3.0, 2.3
#: Images of a forward pass of the statistics on a CPU (as engine.statistics has it).
CPU_IMAGES = 32
#: Starts of a class, and beyond which features × points they are fewer (as engine.barycenter has it).
STARTS, TINY, LARGE = (32, 8, 2), 4_000, 20_000
TYPICAL_ITERATIONS = 60
FLOAT, HALF, DOUBLE = 4, 2, 8
#: Length of a feature from which on the distances cost more than the transport plan.
WIDE_FEATURES = 750
#: Epochs of a file of soft labels; images of a preview.
BLOCK_EPOCHS, PREVIEWED = 20, 10
#: Of a PNG to its pixels, of an iteration or epoch in the event file, of a file's metadata.
PNG_SHARE, EVENT_BYTES, FILE_BYTES = 0.9, 100, 4096


class Work(NamedTuple):
    """Amounts that time is made of; a stage's time is the sum of each times its rate.

    Multiply-adds of networks and elements of BatchNorm layers (in forward passes), multiply-adds of views, layer
    calls, steps, parameter updates, pixels decoded, features × points of the barycenters, files, bytes.
    """

    macs: float = 0
    elements: float = 0
    views: float = 0
    layers: float = 0
    steps: float = 0
    parameters: float = 0
    pixels: float = 0
    transport: float = 0
    files: float = 0
    bytes: float = 0


def total(*parts: Work) -> Work:
    """The sum of several works."""
    return Work(*(sum(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True)
class StageLoad:
    """A stage's work, its peak of memory beyond what the process and the data set take, what it leaves on disk.

    ``checkpoint`` are the bytes of one that is written now and then. ``known`` is False where an architecture's cost is
    not in the table; work and memory are then incomplete.
    """

    stage: str
    work: Work
    memory: int = 0
    disk: int = 0
    checkpoint: int = 0
    known: bool = True


def loads_of(config: RunConfig, data: DataCounts, cuda: bool, resident: bool) -> list[StageLoad]:
    """The loads of start, data and every stage up to ``run.until`` that has something to do.

    ``resident``: the decoded images are kept on the device, else they are decoded for every pass.
    """
    made = set_counts(config, data.classes)
    teachers, students = _teachers(config, data.classes), _students(config, data.classes)
    facts = Facts(config, data, made, teachers[0], students[0], cuda, resident)
    found = [
        StageLoad(START, Work(files=5)),
        StageLoad(DATA, facts.decoding(data.train + data.val if resident else 0)),
    ]
    for stage in config.stages:
        if (stage == "barycenter" and config.barycenter.weights == "none") or (stage == "relabel" and not facts.stored):
            continue
        networks = [network for network in (students if stage == "train" else teachers) if network is not None]
        lacking = len(networks) < len(students if stage == "train" else teachers)
        if lacking or (stage == "train" and facts.online and facts.teacher is None):
            found.append(StageLoad(stage, Work(), known=False))
        else:
            found.append(_one_after_another([MAKERS[stage](facts, network) for network in networks]))
    return found


def _one_after_another(loads: Sequence[StageLoad]) -> StageLoad:
    """A stage done for several networks in turn. What they make together, images and labels, is written once."""
    together = loads[0].stage in ("recover", "relabel")
    return StageLoad(
        loads[0].stage,
        total(*(load.work for load in loads)),
        max(load.memory for load in loads),
        (max if together else sum)(load.disk for load in loads),
        max(load.checkpoint for load in loads),
    )


def _teachers(config: RunConfig, classes: int) -> list[Cost | None]:
    """The costs of the first teacher and of the further ones of a committee."""
    teacher, resolution = config.teacher, config.data.resolution
    others = [member.partition("=")[0].strip() for member in teacher.committee]
    stems = [(teacher.arch, teacher.stem), *((arch, "auto") for arch in others)]
    return [cost_of(arch, resolution, teacher.width, stem, classes) for arch, stem in stems]


def _students(config: RunConfig, classes: int) -> list[Cost | None]:
    stems = {config.teacher.arch: config.teacher.stem}
    return [
        cost_of(arch, config.data.resolution, config.teacher.width, stems.get(arch, "auto"), classes)
        for arch in config.student_archs
    ]


@dataclass(frozen=True)
class Facts:
    """All that the stages' loads are made from."""

    config: RunConfig
    data: DataCounts
    made: SetCounts
    teacher: Cost | None
    student: Cost | None
    cuda: bool
    resident: bool

    @property
    def stored(self) -> bool:
        """Whether soft labels are written ahead."""
        return self.config.relabel.storage == "stored" and self.config.train.labels == "soft"

    @property
    def online(self) -> bool:
        """Whether the teacher labels while the student trains."""
        return self.config.relabel.storage == "online" and self.config.train.labels == "soft"

    @property
    def mixed(self) -> int:
        """Views an image of the student's is made from."""
        return 1 if self.config.relabel.mix == "none" else 2

    @property
    def numbers(self) -> int:
        """Numbers of one image."""
        return 3 * self.config.data.resolution**2

    @property
    def activation(self) -> int:
        """Bytes of an activation that is kept for a backward pass."""
        return HALF if self.cuda else FLOAT

    def views(self, count: float) -> Work:
        """Cutting and resizing: two products with small matrices, and the matrices themselves."""
        side = self.config.data.resolution
        return Work(views=count * (6 * side**3 + 100 * side**2))

    def decoding(self, images: float) -> Work:
        """A built-in set has nothing to decode."""
        return Work() if self.config.data.dataset == "digits" else Work(pixels=images * self.data.pixels)

    def reading(self, images: float) -> Work:
        """Decoding of images that are not kept."""
        return Work() if self.resident else self.decoding(images)

    def evaluations(self, network: Cost, count: float) -> Work:
        """Passes over the validation images."""
        batch = self.config.train.eval_batch
        work = network_work(network, count * self.data.val, count * math.ceil(self.data.val / batch))
        return total(work, self.reading(count * self.data.val))

    def evaluation_memory(self, network: Cost) -> float:
        """Bytes of a pass over the validation images."""
        batch = min(self.config.train.eval_batch, self.data.val)
        return FLOAT * batch * (IN_EVALUATION * network.largest + 3 * self.numbers)

    def backward_memory(self, network: Cost, batch: int) -> float:
        """Bytes of a pass forward and backward."""
        kept = KEPT * network.elements + IN_FLIGHT * network.largest
        return batch * (self.activation * kept + FLOAT * 3 * self.numbers)


def network_work(
    network: Cost, images: float, steps: float, passes: float = 1.0, extra: float = 0.0, training: bool = False
) -> Work:
    """Passes of images through a network in some steps; ``extra`` passes over its BatchNorm elements."""
    return Work(
        macs=images * network.macs * passes,
        elements=images * network.elements * (passes + extra),
        layers=steps * network.layers * passes,
        steps=steps,
        parameters=steps * network.parameters if training else 0,
    )


def _squeeze(facts: Facts, network: Cost) -> StageLoad:
    config, data = facts.config.squeeze, facts.data
    weights = FLOAT * network.parameters
    if facts.config.teacher.source != "train":
        work = total(facts.evaluations(network, 1), Work(files=3, bytes=2 * weights))
        return StageLoad("squeeze", work, int(weights + facts.evaluation_memory(network)), weights)
    seen = data.train * config.epochs
    steps = math.ceil(data.train / config.batch_size) * config.epochs
    work = total(
        network_work(network, seen, steps, TO_WEIGHTS, training=True),
        facts.views(seen),
        facts.reading(seen),
        facts.evaluations(network, config.epochs),
        Work(files=5, bytes=6 * weights),
    )
    batch = min(config.batch_size, data.train)
    # Weights, gradients, the optimiser's state and the best network so far.
    memory: float = (5 if config.ema else 4) * weights
    memory += max(facts.backward_memory(network, batch), facts.evaluation_memory(network))
    # The last, the best and the chosen teacher, its copy in the cache, and two checkpoints with the optimiser's state.
    return StageLoad("squeeze", work, int(memory), 8 * weights, 2 * weights)


def _statistics(facts: Facts, network: Cost) -> StageLoad:
    config, data = facts.config.statistics, facts.data
    averaged = config.variance == "batch-averaged"
    batch = min(config.loading_batch if averaged else config.batch_size, data.train)
    steps = max(math.ceil(data.train / batch), data.classes if averaged else 0)
    features = FLOAT * data.train * network.features
    tables = data.classes * network.channels
    work = total(
        network_work(network, data.train, steps, extra=EXACT_MOMENTS + averaged),
        facts.reading(data.train),
        Work(files=4, bytes=2 * features + 2 * DOUBLE * tables),
    )
    at_once = batch if facts.cuda or averaged else min(batch, CPU_IMAGES)
    memory = FLOAT * at_once * (network.elements + 4 * network.largest) + FLOAT * batch * 3 * facts.numbers
    memory += FLOAT * network.parameters + (3 if averaged else 2) * DOUBLE * tables
    if not facts.cuda:
        memory += features
    # Mean and variance in the run directory and in the cache; features are one file under two names.
    return StageLoad("statistics", work, int(memory), features + 2 * 2 * FLOAT * tables)


def _barycenter(facts: Facts, network: Cost) -> StageLoad:
    config, data, ipc = facts.config.barycenter, facts.data, facts.config.ipc
    each = data.train / data.classes
    starts = config.restarts or STARTS[(each * ipc > TINY) + (each * ipc > LARGE)]
    share = min(1.0, config.iterations / TYPICAL_ITERATIONS)
    threads = min(facts.config.run.threads, data.classes)
    transport = data.classes * starts * each * ipc * (1 + network.features / WIDE_FEATURES) * share / threads
    memory = 0 if facts.cuda else FLOAT * data.train * network.features + 2 * DOUBLE * each * network.features
    points = data.classes * ipc * network.features
    return StageLoad("barycenter", Work(transport=transport, files=2), int(memory), 2 * DOUBLE * points)


def _patches(facts: Facts, network: Cost) -> Work:
    """The teacher's look at the crops of which the images' start is chosen."""
    config, data = facts.config.recover, facts.data
    if config.init != "patches" or config.objective in ("real", "given"):
        return Work()
    photographs = min(data.train, config.patch_photos * data.classes or data.train)
    crops = photographs * config.patch_crops
    forward = network_work(network, crops, crops / PATCHES_AT_A_TIME)
    return total(forward, facts.views(crops), facts.reading(photographs))


def _recover(facts: Facts, network: Cost) -> StageLoad:
    config, made, numbers = facts.config.recover, facts.made, facts.numbers
    seen = made.images * config.iterations if made.iterations else 0
    # A chunk in micro-batches goes forward once more, to collect the moments.
    micro = 0 < config.micro_batch < made.chunk_images
    batch = config.micro_batch if micro else made.chunk_images
    steps = made.iterations * math.ceil(made.chunk_images / batch)
    previews = made.iterations // config.preview_every if config.preview_every else 0
    checkpoints = made.iterations // config.checkpoint_every
    chunk_bytes = FLOAT * made.chunk_images * numbers
    work = total(
        network_work(network, seen, steps, TO_IMAGES + micro, MOMENTS),
        # Adam, the clamp and the views pass over the pixels several times, forward and backward.
        Work(elements=5 * seen * numbers),
        facts.views((2 + micro) * seen),
        _patches(facts, network),
        # The quality of the images, and of as many photographs.
        network_work(network, 2 * made.images, 2 * made.chunks, extra=MOMENTS),
        facts.reading(made.images),
        Work(
            files=made.images + previews + checkpoints + made.chunks + 1,
            bytes=made.images * numbers * (PNG_SHARE + 1) + checkpoints * 3 * chunk_bytes,
        ),
    )
    together = chunks_at_once(facts.config, made.chunks, network.macs * made.chunk_images, facts.cuda)
    # Side by side on a GPU each chunk keeps what its step needs; on a CPU only the one whose turn it is does.
    memory: float = FLOAT * network.parameters + 5 * together * chunk_bytes
    memory += (together if facts.cuda else 1) * facts.backward_memory(network, batch)
    if not made.iterations:
        memory = FLOAT * network.parameters + facts.evaluation_memory(network)
    images = made.images * (numbers * (PNG_SHARE + 1) + FILE_BYTES)
    shown = previews * (PNG_SHARE * min(PREVIEWED, made.chunk_images) * numbers + FILE_BYTES)
    told = EVENT_BYTES * made.iterations
    checkpoint = 3 * together * chunk_bytes if seen else 0
    return StageLoad("recover", work, int(memory), int(images + shown + told), checkpoint)


def _relabel(facts: Facts, network: Cost) -> StageLoad:
    config, made, epochs = facts.config.relabel, facts.made, facts.config.train.epochs
    batch = min(config.batch_size, made.images)
    written = epochs * made.images * config.label_bytes(facts.data.classes)
    work = total(
        network_work(network, epochs * made.images, epochs * math.ceil(made.images / batch)),
        facts.views(epochs * made.images * facts.mixed),
        Work(steps=epochs, files=math.ceil(epochs / BLOCK_EPOCHS), bytes=written),
    )
    memory: float = made.images * facts.numbers + FLOAT * network.parameters
    memory += FLOAT * batch * (IN_EVALUATION * network.largest + 5 * facts.numbers)
    return StageLoad("relabel", work, int(memory), written)


def _train(facts: Facts, network: Cost) -> StageLoad:
    config, made = facts.config.train, facts.made
    real = config.images == "real"
    images = facts.data.train if real else made.images
    seen = config.epochs * images
    batch = min(config.batch_size, images)
    steps = config.epochs * math.ceil(images / batch)
    weights = FLOAT * network.parameters
    work = total(
        network_work(network, seen, steps, TO_WEIGHTS, training=True),
        facts.views(facts.mixed * seen),
        facts.evaluations(network, math.ceil(config.epochs / config.eval_every)),
        Work(steps=config.epochs, files=4, bytes=7 * weights),
    )
    if real:
        work = total(work, facts.reading(facts.mixed * seen))
    # Synthetic images are kept in 8 bits a number, real ones with the data set; both are converted batch by batch.
    memory: float = 5 * weights + (FLOAT * facts.mixed * batch + (0 if real else images)) * facts.numbers
    if facts.online and facts.teacher is not None:
        work = total(work, network_work(facts.teacher, seen, steps), facts.views(facts.mixed * seen))
        memory += FLOAT * facts.teacher.parameters
    part = math.ceil(batch / config.accumulate)
    memory += max(facts.backward_memory(network, part), facts.evaluation_memory(network))
    # The student, and two checkpoints with the optimiser's state, which is twice the weights.
    return StageLoad("train", work, int(memory), 7 * weights + EVENT_BYTES * config.epochs, 3 * weights)


MAKERS = {
    "squeeze": _squeeze,
    "statistics": _statistics,
    "barycenter": _barycenter,
    "recover": _recover,
    "relabel": _relabel,
    "train": _train,
}
