"""Sections of the real images and of what is drawn from them: teacher, statistics, barycenters."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field, field_validator, model_validator

from engine.config.section import BASIC, LATER, Names, Section, unit


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
        json_schema_extra=unit("px", True),
    )
    val_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the images held out by seed where the set has no validation split.",
    )
    max_per_class: int = Field(
        0, ge=0, le=1_000_000, description="Use at most this many training images a class; 0 uses all."
    )
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
    crop: float = Field(
        1.0,
        ge=0.5,
        le=1,
        description="Side of the central square that is taken of an image, as a share of its shorter side; 0.875 is "
        "what the published scripts take of real images (resized to 256, cropped to 224).",
        json_schema_extra=LATER,
    )
    normalise: Literal["auto", "none"] = Field(
        "auto",
        description="What networks see: colours by the mean and standard deviation of the set (of ImageNet, where it "
        "has none of its own), or as they are, 0 to 1, as teachers of ImageNet-21K-P are trained.",
        json_schema_extra=LATER,
    )
    storage: Literal["auto", "device", "stream"] = Field(
        "auto",
        description="Keep the decoded images on the device, or decode every pass; auto decides by size.",
    )
    workers: int = Field(2, ge=1, le=256, description="Threads that decode images.", json_schema_extra=unit("threads"))

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

    epochs: int = Field(50, ge=1, le=100_000, description="Passes over the training images.", json_schema_extra=BASIC)
    batch_size: int = Field(32, ge=2, le=1_000_000, description="Images a step.", json_schema_extra=unit("images"))
    lr: float = Field(0.025, gt=0, description="Peak learning rate.")
    optimizer: Literal["sgd", "nesterov", "rmsprop", "adamw"] = Field(
        "sgd",
        description="What trains the teacher: SGD with momentum, Nesterov's or not, RMSprop or AdamW.",
        json_schema_extra=LATER,
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD and RMSprop.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay.")
    warmup_epochs: int = Field(0, ge=0, le=1_000_000, description="Epochs of linear warm-up before the schedule.")
    schedule: Literal["cosine", "exponential", "step"] = Field(
        "cosine",
        description="Learning rate after warm-up: to 0 along a cosine, or times squeeze.gamma after every epoch, or "
        "after every squeeze.step_epochs epochs.",
        json_schema_extra=LATER,
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of the schedules that fall.", json_schema_extra=LATER)
    step_epochs: int = Field(
        30, ge=1, le=1_000_000, description="Epochs between two falls of 'step'.", json_schema_extra=LATER
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of the cross-entropy.")
    crop_min: float = Field(0.08, gt=0, le=1, description="Smallest share of the area a random crop keeps.")
    flip: bool = Field(True, description="Random horizontal flips.")
    augment: Literal[
        "none", "randaugment", "trivialaugment", "augmix", "autoaugment", "autoaugment-cifar10", "autoaugment-svhn"
    ] = Field(
        "none",
        description="torchvision's automatic augmentation of every view (autoaugment: the policy found on ImageNet).",
        json_schema_extra=LATER,
    )
    randaugment_magnitude: int = Field(
        9, ge=0, le=30, description="Strength of RandAugment's two operations, 0 to 30.", json_schema_extra=LATER
    )
    augmix_severity: int = Field(
        3, ge=1, le=10, description="Strength of AugMix's operations, 1 to 10.", json_schema_extra=LATER
    )
    erase: float = Field(
        0.0, ge=0, le=1, description="Probability that a rectangle of a view is erased.", json_schema_extra=LATER
    )
    mixup: float = Field(
        0.0,
        ge=0,
        description="MixUp of the batch's images: parameter of the Beta distribution; 0: none.",
        json_schema_extra=LATER,
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        description="CutMix likewise; with squeeze.mixup one of the two at random for each batch.",
        json_schema_extra=LATER,
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        json_schema_extra=LATER,
        description="Decay of the averaged teacher, which is then judged and kept; during warm-up it is a copy. "
        "0: no average.",
    )
    ema_every: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Steps of an epoch between two updates of the average.",
        json_schema_extra=LATER,
    )
    keep: Literal["last", "best"] = Field(
        "last", description="Which epoch's network is the teacher: the last, or that of the highest top-1."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compile the step; auto: on a GPU, where that repays its time within the run. As recover.compile.",
        json_schema_extra=LATER,
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
        le=1_000_000,
        description="Batch of one class whose variances 'batch-averaged' averages.",
        json_schema_extra=unit("images"),
    )
    batch_size: int = Field(
        256, ge=1, le=1_000_000, description="Images a forward pass.", json_schema_extra=unit("images")
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Autocast of the network; auto is as run.precision has it. bf16 is faster and moves means and "
        "features by some thousandths.",
    )


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
        description="Starts, of which the lowest W2² is kept; 0 chooses by the class's size.",
    )
