"""The configuration of a run, defined once.

From these models come the TOML files, validation, ``--set`` overrides, the form's fields and the docs' table.
Each field carries its help text as ``description``, its bounds, and, in ``json_schema_extra``, ``unit`` and
``level`` ("basic" fields come first in the form).
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

BASIC: dict[str, Any] = {"level": "basic"}
DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"
DEVICES_PATTERN = r"^(all|cpu|cuda:\d+|(GPU|MIG)-[\w/-]+)$"


def _unit(unit: str, basic: bool = False) -> dict[str, Any]:
    return {"unit": unit, "level": "basic" if basic else "advanced"}


def _listed(value: Any) -> Any:
    """A text as ``--set`` and the form give it, "a, b", as a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # a single number is a name too: --set run.devices=0
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


#: A list of names; one of a single line may be written "a, b".
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """One table of the TOML file: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class DataConfig(Section):
    """Which images, at what size."""

    dataset: Literal["digits", "imagefolder", "cifar10", "cifar100", "parquet"] = Field(
        "digits",
        description="Kind of dataset; digits is built in, the others need a path.",
        json_schema_extra=BASIC,
    )
    path: str = Field(
        "",
        description="Folder of the dataset; ~ and environment variables are expanded.",
        json_schema_extra=BASIC,
    )
    resolution: int = Field(
        16,
        ge=8,
        le=512,
        description="Height and width images are processed at.",
        json_schema_extra=_unit("px", True),
    )
    val_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the images held out by seed where the set has no validation split.",
    )
    max_per_class: int = Field(0, ge=0, description="Use at most this many training images a class; 0 uses all.")
    on_corrupt: Literal["error", "skip"] = Field(
        "error",
        description="What an unreadable image does: end the run before any work, or be left out and named.",
    )
    pseudo_labels: str = Field(
        "", description="CSV of labels that take the place of the training images' own; docs/interchange.md."
    )
    pseudo_ids: Literal["classes", "clusters"] = Field(
        "classes",
        description="What the labels of data.pseudo_labels number: the data set's classes, or clusters, each of which "
        "is matched with a class by optimal assignment.",
    )
    on_mismatch: Literal["error", "skip"] = Field(
        "error",
        description="What a row of data.pseudo_labels without an image, an image without a row, a duplicate or a label "
        "out of range does: end the run before any work, or be left out and counted.",
    )
    storage: Literal["auto", "device", "stream"] = Field(
        "auto",
        description="Keep the decoded images on the device, or decode every pass; auto decides by size.",
    )
    workers: int = Field(2, ge=1, le=256, description="Threads that decode images.", json_schema_extra=_unit("threads"))

    @field_validator("path", "pseudo_labels")
    @classmethod
    def _expand(cls, value: str) -> str:
        return os.path.expanduser(os.path.expandvars(value))

    @model_validator(mode="after")
    def _path_needed(self) -> DataConfig:
        if self.dataset != "digits" and not self.path:
            raise ValueError(f"data.dataset = '{self.dataset}' needs data.path: the folder that holds it")
        return self


class TeacherConfig(Section):
    """The network whose features and BatchNorm statistics are matched."""

    source: Literal["train", "torchvision", "checkpoint", "run"] = Field(
        "train",
        description="Train it here (squeeze), or load torchvision weights, a checkpoint file, or an earlier run's.",
        json_schema_extra=BASIC,
    )
    arch: str = Field(
        "convnet3",
        min_length=1,
        description="convnet3, convnet4, or any torchvision classifier with BatchNorm (resnet18, vgg11_bn, …).",
        json_schema_extra=BASIC,
    )
    width: int = Field(64, ge=4, le=1024, description="Channels of convnet3 and convnet4.")
    stem: Literal["auto", "standard", "small", "tiny"] = Field(
        "auto",
        description="ResNet stem: standard 7×7, small 3×3 without pooling (auto: up to 64 px), tiny 3×3 stride 2.",
    )
    weights: str = Field("DEFAULT", description="torchvision weights name, with source = 'torchvision'.")
    path: str = Field("", description="Checkpoint file (source = 'checkpoint') or run directory (source = 'run').")
    committee: Names = Field(
        (),
        description="Further teachers, whose losses and logits are averaged with the first one's: ARCH, obtained as "
        "that one is, or ARCH=PATH of a checkpoint file or run.",
    )

    @field_validator("path")
    @classmethod
    def _expand(cls, value: str) -> str:
        return os.path.expanduser(os.path.expandvars(value))

    @model_validator(mode="after")
    def _committee_of_different_teachers(self) -> TeacherConfig:
        seen = {self.arch if self.source in ("train", "torchvision") else f"{self.arch}={self.path}"}
        for member in self.committee:
            arch, separator, path = member.partition("=")
            if not arch.strip() or (separator and not path.strip()):
                raise ValueError(f"teacher.committee: '{member}' names no teacher; write ARCH or ARCH=PATH")
            if not separator and self.source not in ("train", "torchvision"):
                raise ValueError(
                    f"teacher.committee: '{member}' has no checkpoint, while teacher.source = '{self.source}' loads "
                    f"one: write {member}=PATH"
                )
            if member in seen:
                raise ValueError(f"teacher.committee: '{member}' is a teacher already, and its vote would count twice")
            seen.add(member)
        return self

    @model_validator(mode="after")
    def _path_needed(self) -> TeacherConfig:
        if self.source in ("checkpoint", "run") and not self.path:
            raise ValueError(f"teacher.source = '{self.source}' needs teacher.path")
        if self.source in ("train", "torchvision") and self.path:
            raise ValueError(
                f"teacher.path has no effect with teacher.source = '{self.source}': "
                "remove it, or set teacher.source = 'checkpoint'"
            )
        return self


class SqueezeConfig(Section):
    """Training of the teacher on real images (skipped when the teacher is loaded)."""

    epochs: int = Field(50, ge=1, description="Passes over the training images.", json_schema_extra=BASIC)
    batch_size: int = Field(32, ge=2, description="Images a step.", json_schema_extra=_unit("images"))
    lr: float = Field(0.025, gt=0, description="Peak learning rate of SGD.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay of SGD.")
    warmup_epochs: int = Field(0, ge=0, description="Epochs of linear warm-up before the cosine.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the cross-entropy.")
    crop_min: float = Field(0.08, gt=0, le=1, description="Smallest share of the area a random crop keeps.")
    flip: bool = Field(True, description="Random horizontal flips.")
    keep: Literal["last", "best"] = Field(
        "last", description="Which epoch's network is the teacher: the last, or that of the highest top-1."
    )


class StatisticsConfig(Section):
    """Per-class BatchNorm statistics and features of the real images."""

    variance: Literal["exact", "batch-averaged"] = Field(
        "exact",
        description="Exact per-class variance, or the reference's mean of variances within loading batches.",
    )
    loading_batch: int = Field(
        100,
        ge=1,
        description="Batch of one class whose variances 'batch-averaged' averages.",
        json_schema_extra=_unit("images"),
    )
    batch_size: int = Field(256, ge=1, description="Images a forward pass.", json_schema_extra=_unit("images"))


class BarycenterConfig(Section):
    """Wasserstein barycenters of the features of each class."""

    weights: Literal["uniform", "optimized", "none"] = Field(
        "uniform",
        description="Mass of the support points: equal, optimised (k-means), or no barycenters at all.",
        json_schema_extra=BASIC,
    )
    iterations: int = Field(60, ge=1, le=10_000, description="Most alternations of transport plan and positions.")
    tolerance: float = Field(1e-7, ge=0, description="Relative decrease of W2² under which the alternation ends.")
    restarts: int = Field(
        0,
        ge=0,
        le=100,
        description="k-means++ starts, of which the lowest W2² is kept; 0 chooses by the class's size.",
    )


class RecoverConfig(Section):
    """Optimisation of the synthetic images."""

    objective: Literal["wmdd", "sre2l", "real", "given"] = Field(
        "wmdd",
        description="wmdd: features to barycenters plus cross-entropy; sre2l: cross-entropy alone; real: "
        "no optimisation but random real photographs, the control every distilled set must beat; given: the "
        "images of recover.path as they are.",
        json_schema_extra=BASIC,
    )
    path: str = Field(
        "", description="Folder of synthetic images (objective = 'given'): another run's, or a published set."
    )
    quality: bool = Field(
        True,
        description="Measure the images with the teacher beside random real photographs; without it, images that are "
        "given or real need no statistics and, with labels that need no teacher, no teacher.",
    )
    loss_semantics: Literal["reference", "paper"] = Field(
        "reference",
        description="Un-squared norms as the authors' code, or squared norms as the paper's equations.",
    )
    bn: Literal["per-class", "global"] = Field(
        "per-class", description="BatchNorm target: the class's own statistics or the teacher's running ones."
    )
    chunk: Literal["per-class", "across-classes"] = Field(
        "per-class", description="Images optimised together: whole classes, or one image of each class."
    )
    iterations: int = Field(2000, ge=1, description="Optimisation steps a chunk.", json_schema_extra=BASIC)
    batch_size: int = Field(
        100,
        ge=1,
        description="Images a chunk; a class larger than this forms a chunk of its own.",
        json_schema_extra=_unit("images"),
    )
    micro_batch: int = Field(
        0,
        ge=0,
        description="Most images a backward pass, exact whatever the value; 0 takes the whole chunk.",
        json_schema_extra=_unit("images"),
    )
    lr: float = Field(0.25, gt=0, description="Peak learning rate of Adam on the pixels.", json_schema_extra=BASIC)
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's first decay rate.")
    beta2: float = Field(0.9, ge=0, lt=1, description="Adam's second decay rate.")
    r_bn: float = Field(
        10.0,
        ge=0,
        description="λ: coefficient of the BatchNorm term (for the reference semantics).",
        json_schema_extra=BASIC,
    )
    r_wb: float = Field(1.0, ge=0, description="Coefficient of the teacher's cross-entropy.")
    r_feature: float = Field(1.0, ge=0, description="Coefficient of the feature term.")
    first_bn_multiplier: float = Field(1.0, ge=0, description="Extra factor of the first BatchNorm layer.")
    tv: float = Field(0.0, ge=0, description="Coefficient of the total-variation prior.")
    l2: float = Field(0.0, ge=0, description="Coefficient of the L2 image prior.")
    init: Literal["noise", "real"] = Field(
        "noise", description="Start from Gaussian noise or from random real photographs of the class."
    )
    augment: Literal["shared", "per-image"] = Field(
        "shared", description="One random view a step for the whole chunk (reference) or one for each image."
    )
    crop_min: float = Field(0.08, gt=0, le=1, description="Smallest share of the area a view keeps.")
    flip: bool = Field(True, description="Random horizontal flips of the view.")
    roll: int = Field(
        32,
        ge=0,
        description="Largest circular shift of the view in each axis.",
        json_schema_extra=_unit("px"),
    )
    curriculum: Literal["none", "step", "linear", "cosine"] = Field(
        "none", description="CDA: how the lower crop bound falls from 1 to crop_min."
    )
    milestone: float = Field(1.0, gt=0, le=1, description="Share of the iterations the curriculum lasts.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Autocast of the network; auto is bf16 on a GPU, fp32 on a CPU."
    )
    checkpoint_every: int = Field(200, ge=1, description="Iterations between checkpoints within a chunk.")
    preview_every: int = Field(100, ge=0, description="Iterations between preview images; 0 makes none.")

    @field_validator("path")
    @classmethod
    def _expand(cls, value: str) -> str:
        return os.path.expanduser(os.path.expandvars(value))

    @model_validator(mode="after")
    def _path_with_given(self) -> RecoverConfig:
        if (self.objective == "given") != bool(self.path):
            raise ValueError(
                "recover.objective = 'given' needs recover.path: the folder of the images"
                if self.objective == "given"
                else f"recover.path has no effect with recover.objective = '{self.objective}': remove it, or set "
                "recover.objective = 'given'"
            )
        return self


class RelabelConfig(Section):
    """Soft labels: the teacher's logits of augmented views of the synthetic images."""

    storage: Literal["stored", "online", "fkd"] = Field(
        "stored",
        description="Write the logits to the run directory, compute them while training, or read relabel.path.",
    )
    path: str = Field("", description="FKD folder of soft labels (storage = 'fkd'): epoch_0/batch_0.tar and so on.")
    order: Literal["seeded", "fkd"] = Field(
        "seeded",
        description="Order of the images in an epoch: drawn from the seed, or FKD's, whose label files rely on it.",
    )
    mix: Literal["cutmix", "mixup", "none"] = Field("cutmix", description="Mixing of two images of a mix group.")
    alpha: float = Field(1.0, gt=0, description="Parameter of the Beta distribution λ is drawn from.")
    mix_group: int = Field(
        100,
        ge=2,
        description="Images that share one λ and box and mix among themselves.",
        json_schema_extra=_unit("images"),
    )
    crop_min: float = Field(0.08, gt=0, le=1, description="Smallest share of the area a view keeps.")
    flip: bool = Field(True, description="Random horizontal flips of the views.")
    batch_size: int = Field(500, ge=1, description="Images a teacher forward pass.", json_schema_extra=_unit("images"))

    @field_validator("path")
    @classmethod
    def _expand(cls, value: str) -> str:
        return os.path.expanduser(os.path.expandvars(value))

    @model_validator(mode="after")
    def _path_with_fkd(self) -> RelabelConfig:
        if (self.storage == "fkd") != bool(self.path):
            raise ValueError(
                "relabel.storage = 'fkd' needs relabel.path: the folder that holds epoch_0/batch_0.tar"
                if self.storage == "fkd"
                else f"relabel.path has no effect with relabel.storage = '{self.storage}': remove it, or set "
                "relabel.storage = 'fkd'"
            )
        return self


class TrainConfig(Section):
    """The student trained on the synthetic images, judged on real ones."""

    arch: str = Field("", description="Student architecture; empty takes the teacher's.", json_schema_extra=BASIC)
    students: Names = Field(
        (),
        description="Architectures of several students, each trained on the same set, in place of train.arch: the "
        "cross-architecture table. The first is the one all other figures are of.",
    )
    labels: Literal["soft", "hard"] = Field("soft", description="Train on soft labels, or on classes as a control.")
    loss: Literal["kl", "mse-gt", "soft-ce"] = Field(
        "kl",
        description="With soft labels: KL divergence at temperature T, mean squared error of the logits plus "
        "cross-entropy with the class, or cross-entropy with the soft labels at temperature T.",
    )
    gt_weight: float = Field(0.1, ge=0, description="Coefficient of the cross-entropy with the class in 'mse-gt'.")
    augment: Literal["none", "randaugment"] = Field(
        "none", description="With hard labels: RandAugment on every image before its view is cut."
    )
    randaugment_ops: int = Field(2, ge=1, le=16, description="Operations RandAugment applies one after another.")
    randaugment_magnitude: int = Field(9, ge=0, le=30, description="Strength of RandAugment's operations, 0 to 30.")
    images: Literal["synthetic", "real"] = Field(
        "synthetic",
        description="Train on the synthetic images or, bypassing distillation, on all real training images.",
    )
    seed: int = Field(
        -1,
        ge=-1,
        lt=2**63,
        description="Seed of the student and of the views it sees, where it shall differ from seed; -1: the same.",
    )
    epochs: int = Field(300, ge=1, description="Passes over the synthetic images.", json_schema_extra=BASIC)
    batch_size: int = Field(100, ge=2, description="Images a step.", json_schema_extra=_unit("images"))
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="What trains the student: AdamW, or SGD with momentum."
    )
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.", json_schema_extra=BASIC)
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay.")
    temperature: float = Field(20.0, gt=0, description="T of the distillation loss.")
    schedule: Literal["cosine", "smoothed-cosine", "linear", "constant"] = Field(
        "cosine",
        description="Learning rate by epoch: to 0 along a cosine or a line, along half of the cosine's arc, constant.",
    )
    warmup_epochs: int = Field(0, ge=0, description="Epochs of linear warm-up before the schedule.")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay a step of the averaged student that is judged and kept; 0: the last one."
    )
    eval_every: int = Field(10, ge=1, description="Epochs between evaluations; the last is always evaluated.")
    eval_batch: int = Field(500, ge=1, description="Images a forward pass of evaluation.")

    @model_validator(mode="after")
    def _students_and_labels(self) -> TrainConfig:
        if self.students and self.arch:
            raise ValueError("train.arch and train.students both name students: leave one of them empty")
        twice = next((name for name in self.students if self.students.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"train.students names '{twice}' twice: name each student once")
        if self.augment != "none" and self.labels == "soft":
            raise ValueError(
                f"train.augment = '{self.augment}' changes images after the teacher has labelled them: set "
                "train.labels = 'hard', or train.augment = 'none'"
            )
        return self


class RunSection(Section):
    """Where and how the run computes."""

    device: str = Field(
        "auto", pattern=DEVICE_PATTERN, description="auto, cpu, cuda or cuda:N.", json_schema_extra=BASIC
    )
    devices: Names = Field(
        (),
        description="Several devices, each with a process of its own: 0, 1 or cuda:0 (GPUs), GPU-… or MIG-… (by name), "
        "all (every GPU), or cpu, cpu; empty uses run.device alone. docs/scaling.md.",
    )
    sync_bn: bool = Field(
        False,
        description="On several devices: BatchNorm of the teacher's training over the whole batch, not its parts.",
    )
    student_on: Literal["first", "all"] = Field(
        "first",
        description="On several devices: train each student on one of them, or on all, a part of every batch on each.",
    )
    threads: int = Field(2, ge=1, le=1024, description="CPU threads of the engine; part of the result's identity.")
    use_cache: bool = Field(True, description="Reuse teachers, statistics and barycenters of earlier runs.")
    until: Literal["squeeze", "statistics", "barycenter", "recover", "relabel", "train"] = Field(
        "train", description="Last stage to run."
    )
    checkpoint_seconds: float = Field(
        10.0,
        ge=0,
        le=86400,
        description="Time between checkpoints within a stage, stretched where writing one takes over 5 %; 0: no pause.",
        json_schema_extra=_unit("s"),
    )
    beat_seconds: float = Field(2.0, gt=0, le=60, description="Interval of heartbeats.", json_schema_extra=_unit("s"))
    on_end: str = Field("", description="Command executed when the run ends; facts are in WMDD_* variables.")
    on_stall: str = Field("", description="Command executed when nothing was finished for run.stall_seconds.")
    stall_seconds: float = Field(
        300.0, gt=0, le=86400, description="Silence that counts as a stall.", json_schema_extra=_unit("s")
    )

    @field_validator("devices")
    @classmethod
    def _nameable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(f"cuda:{name}" if name.isdecimal() else name for name in value)
        wrong = next((name for name in names if not re.match(DEVICES_PATTERN, name)), None)
        if wrong is not None:
            raise ValueError(
                f"run.devices: '{wrong}' is no device; name GPUs as 0, cuda:0, GPU-… or MIG-…, or give all, or cpu, cpu"
            )
        if "all" in names and len(names) > 1:
            raise ValueError("run.devices: all stands alone; leave out the others, or name each")
        if "cpu" in names and set(names) != {"cpu"}:
            raise ValueError("run.devices: CPU and GPUs cannot share a run; name devices of one kind")
        twice = next((name for name in names if name != "cpu" and names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"run.devices names {twice} twice: each GPU takes one process")
        return names

    @model_validator(mode="after")
    def _synchronised_on_gpus(self) -> RunSection:
        if self.sync_bn and set(self.devices) == {"cpu"}:
            raise ValueError("run.sync_bn = true needs GPUs in run.devices: set run.sync_bn = false, or name GPUs")
        return self

    @field_validator("on_end", "on_stall")
    @classmethod
    def _splits(cls, value: str) -> str:
        try:
            shlex.split(value)
        except ValueError as error:
            raise ValueError(f"the command {value!r} cannot be split into words: {error}; check its quotes") from None
        return value


class RunConfig(Section):
    """Everything that determines a run."""

    name: str = Field("", max_length=80, description="A name to recognise the run by.", json_schema_extra=BASIC)
    group: str = Field("", max_length=80, description="The study a run belongs to; runs of a group stand together.")
    preset: str = Field("", description="The preset this configuration came from.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every random choice.", json_schema_extra=BASIC)
    ipc: int = Field(10, ge=1, description="Synthetic images per class.", json_schema_extra=_unit("images", True))
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    squeeze: SqueezeConfig = SqueezeConfig()
    statistics: StatisticsConfig = StatisticsConfig()
    barycenter: BarycenterConfig = BarycenterConfig()
    recover: RecoverConfig = RecoverConfig()
    relabel: RelabelConfig = RelabelConfig()
    train: TrainConfig = TrainConfig()
    run: RunSection = RunSection()

    @field_validator("name", "group")
    @classmethod
    def _printable(cls, value: str) -> str:
        if any(ord(character) < 32 for character in value):
            raise ValueError("names of runs and groups must not hold control characters or line breaks")
        return value

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        recover = self.recover
        if recover.chunk == "across-classes" and recover.bn == "per-class":
            raise ValueError(
                "recover.chunk = 'across-classes' holds one image of each class, which has no per-class statistics: "
                "set recover.bn = 'global' or recover.chunk = 'per-class'"
            )
        if recover.objective == "wmdd" and self.barycenter.weights == "none" and recover.r_feature > 0:
            raise ValueError(
                "barycenter.weights = 'none' leaves the feature term without a target: "
                "set recover.r_feature = 0, recover.objective = 'sre2l', or barycenter.weights = 'uniform'"
            )
        if self.relabel.storage == "stored" and self.train.labels == "hard":
            object.__setattr__(self, "relabel", self.relabel.model_copy(update={"storage": "online"}))
        if self.relabel.storage == "fkd" and (self.train.images == "real" or self.recover.objective != "given"):
            raise ValueError(
                "relabel.storage = 'fkd' labels the images it was made of: set recover.objective = 'given' and "
                "recover.path (and train.images = 'synthetic'), or relabel.storage = 'online'"
            )
        if self.relabel.storage == "stored" and self.train.images == "real":
            object.__setattr__(self, "relabel", self.relabel.model_copy(update={"storage": "online"}))
        if self.data.pseudo_ids == "clusters" and (self.train.images != "real" or self.train.labels != "hard"):
            raise ValueError(
                "data.pseudo_ids = 'clusters' is for training on the real images alone: set train.images = 'real' and "
                "train.labels = 'hard', or give classes"
            )
        arch = self.teacher.arch
        if not arch.startswith("convnet") and self.data.resolution < 32:
            raise ValueError(
                f"data.resolution {self.data.resolution} is too small for {arch}: 32 or more, "
                "or teacher.arch = 'convnet3'"
            )
        if arch == "convnet4" and self.data.resolution < 16:
            raise ValueError(f"data.resolution {self.data.resolution} is too small for convnet4: 16 or more")
        return self

    @property
    def student_seed(self) -> int:
        """Seed of the student's weights, and of the order, views and mixing of its images."""
        return self.seed if self.train.seed < 0 else self.train.seed

    @property
    def student_archs(self) -> tuple[str, ...]:
        """The architectures of all students, of which there is at least one."""
        return self.train.students or (self.train.arch or self.teacher.arch,)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that have something to do, up to ``run.until``."""
        wanted = STAGES[: STAGES.index(self.run.until) + 1]
        idle: set[str] = set()
        if self.train.images == "real":
            idle = {"statistics", "barycenter", "recover", "relabel"}
        elif self.recover.objective in ("given", "real") and not self.recover.quality:
            idle = {"statistics", "barycenter"}
        if idle and "train" in wanted and (self.train.labels == "hard" or self.relabel.storage == "fkd"):
            idle.add("squeeze")
        return tuple(stage for stage in wanted if stage not in idle)


STAGES: tuple[str, ...] = get_args(RunSection.model_fields["until"].annotation)
