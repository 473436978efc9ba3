"""The configuration of a run, defined once.

From these models come the TOML files, validation, ``--set`` overrides, the form's fields and the docs' table.
Each field carries its help text as ``description``, its bounds, and, in ``json_schema_extra``, ``unit`` and
``level`` ("basic" fields come first in the form).
"""

from __future__ import annotations

import os
import shlex
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

BASIC: dict[str, Any] = {"level": "basic"}
DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"


def _unit(unit: str, basic: bool = False) -> dict[str, Any]:
    return {"unit": unit, "level": "basic" if basic else "advanced"}


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
    storage: Literal["auto", "device", "stream"] = Field(
        "auto",
        description="Keep the decoded images on the device, or decode every pass; auto decides by size.",
    )
    workers: int = Field(2, ge=1, le=256, description="Threads that decode images.", json_schema_extra=_unit("threads"))

    @field_validator("path")
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

    @field_validator("path")
    @classmethod
    def _expand(cls, value: str) -> str:
        return os.path.expanduser(os.path.expandvars(value))

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
        "", description="ImageFolder tree of synthetic images (objective = 'given'): another run's, or a published set."
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

    storage: Literal["stored", "online"] = Field(
        "stored", description="Write the logits to the run directory, or compute them while training."
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


class TrainConfig(Section):
    """The student trained on the synthetic images, judged on real ones."""

    arch: str = Field("", description="Student architecture; empty takes the teacher's.", json_schema_extra=BASIC)
    labels: Literal["soft", "hard"] = Field("soft", description="Train on soft labels, or on classes as a control.")
    epochs: int = Field(300, ge=1, description="Passes over the synthetic images.", json_schema_extra=BASIC)
    batch_size: int = Field(100, ge=2, description="Images a step.", json_schema_extra=_unit("images"))
    lr: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.", json_schema_extra=BASIC)
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay.")
    temperature: float = Field(20.0, gt=0, description="T of the distillation loss.")
    schedule: Literal["cosine", "smoothed-cosine", "constant"] = Field(
        "cosine", description="Learning rate by epoch; smoothed-cosine falls half as far."
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay a step of the averaged student that is judged and kept; 0: the last one."
    )
    eval_every: int = Field(10, ge=1, description="Epochs between evaluations; the last is always evaluated.")
    eval_batch: int = Field(500, ge=1, description="Images a forward pass of evaluation.")


class RunSection(Section):
    """Where and how the run computes."""

    device: str = Field(
        "auto", pattern=DEVICE_PATTERN, description="auto, cpu, cuda or cuda:N.", json_schema_extra=BASIC
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
        arch = self.teacher.arch
        if not arch.startswith("convnet") and self.data.resolution < 32:
            raise ValueError(
                f"data.resolution {self.data.resolution} is too small for {arch}: 32 or more, "
                "or teacher.arch = 'convnet3'"
            )
        if arch == "convnet4" and self.data.resolution < 16:
            raise ValueError(f"data.resolution {self.data.resolution} is too small for convnet4: 16 or more")
        return self


STAGES: tuple[str, ...] = get_args(RunSection.model_fields["until"].annotation)
