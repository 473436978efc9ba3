"""Sections of the synthetic images: how they are recovered, labelled and trained on."""

from __future__ import annotations

import math
import os
from typing import Literal

from pydantic import Field, field_validator, model_validator

from engine.config.section import BASIC, LATER, Names, Section, unit


class RecoverConfig(Section):
    """Optimisation of the synthetic images."""

    objective: Literal["wmdd", "sre2l", "real", "start", "given"] = Field(
        "wmdd",
        description="wmdd: features to barycenters plus cross-entropy; sre2l: cross-entropy alone; real: "
        "no optimisation but random real photographs, the control every distilled set must beat; start: the images of "
        "recover.init as they are; given: those of recover.path.",
        json_schema_extra=BASIC,
    )
    path: str = Field(
        "", description="Folder of synthetic images (objective = 'given'): another run's, or a published set."
    )
    quality: bool = Field(
        True,
        description="Measure the images with the teacher beside random real photographs; without it, SRe2L's recovery "
        "(global BatchNorm, no barycenters) and images that are given or real need no statistics, and the latter, with "
        "labels that need none, no teacher.",
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
    iterations: int = Field(
        2000, ge=1, le=1_000_000, description="Optimisation steps a chunk.", json_schema_extra=BASIC
    )
    batch_size: int = Field(
        100,
        ge=1,
        le=1_000_000,
        description="Images a chunk; a class larger than this forms a chunk of its own.",
        json_schema_extra=unit("images"),
    )
    micro_batch: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Most images a backward pass, exact whatever the value; 0 takes the whole chunk.",
        json_schema_extra=unit("images"),
    )
    concurrent: int = Field(
        0,
        ge=0,
        le=64,
        description="Chunks optimised side by side on a device; the images are the same. 0: as many as fill a GPU and "
        "fit its memory, one on a CPU.",
        json_schema_extra=unit("chunks"),
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
    init: Literal["noise", "real", "patches"] = Field(
        "noise",
        description="Start from Gaussian noise, from random real photographs of the class, or from the best patches of "
        "some of them.",
    )
    patches_per_image: int = Field(
        1, ge=1, le=16, description="Patches an image starts from, side by side: 1, 4, 9 or 16 (init = 'patches')."
    )
    patch_choice: Literal["confidence", "barycenter"] = Field(
        "confidence",
        description="Which patches are best: those the teacher is surest of, or those whose feature is nearest to the "
        "image's barycenter.",
    )
    patch_photos: int = Field(
        300,
        ge=0,
        le=1_000_000,
        description="Photographs of a class that are looked at, dealt round to its images; 0 looks at all.",
        json_schema_extra=unit("images"),
    )
    patch_crops: int = Field(
        5, ge=1, le=1000, description="Crops of each photograph that are compared; the first is the whole photograph."
    )
    patch_crop_min: float = Field(0.5, gt=0, le=1, description="Smallest share of the area such a crop keeps.")
    augment: Literal["shared", "per-image"] = Field(
        "shared", description="One random view a step for the whole chunk (reference) or one for each image."
    )
    crop_min: float = Field(0.08, gt=0, le=1, description="Smallest share of the area a view keeps.")
    flip: bool = Field(True, description="Random horizontal flips of the view.")
    roll: int = Field(
        32,
        ge=0,
        le=1_000_000,
        description="Largest circular shift of the view in each axis.",
        json_schema_extra=unit("px"),
    )
    roll_both: bool = Field(
        False,
        description="Shift to either side by up to recover.roll, as SRe2L does on Tiny-ImageNet, in place of one.",
        json_schema_extra=LATER,
    )
    curriculum: Literal["none", "step", "linear", "cosine"] = Field(
        "none", description="CDA: how the lower crop bound falls from 1 to crop_min."
    )
    milestone: float = Field(1.0, gt=0, le=1, description="Share of the iterations the curriculum lasts.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Autocast of the network in recovery; auto is as run.precision has it."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="On a GPU every step is recorded as a CUDA graph and replayed, unless this is off. on: its "
        "operations are compiled too, forward and backward; auto: where that repays its time within the run, decided "
        "at the first start and kept in config.toml. docs/engine.md.",
    )
    verifier: str = Field(
        "",
        description="A second network that judges the images while they are made, and in the end: ARCH with "
        "torchvision's weights, or ARCH=PATH of a checkpoint file or run. It has no part in the result.",
        json_schema_extra=LATER,
    )
    verify_every: int = Field(
        100, ge=1, le=1_000_000, description="Iterations between two looks of the verifier.", json_schema_extra=LATER
    )
    checkpoint_every: int = Field(200, ge=1, le=1_000_000, description="Iterations between checkpoints within a chunk.")
    preview_every: int = Field(100, ge=0, le=1_000_000, description="Iterations between preview images; 0 makes none.")

    @field_validator("path")
    @classmethod
    def _expand(cls, value: str) -> str:
        return os.path.expanduser(os.path.expandvars(value))

    @field_validator("patches_per_image")
    @classmethod
    def _square(cls, value: int) -> int:
        if math.isqrt(value) ** 2 != value:
            raise ValueError(f"recover.patches_per_image = {value} do not fill a square: 1, 4, 9 or 16")
        return value

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
        le=1_000_000,
        description="Images that share one λ and box and mix among themselves.",
        json_schema_extra=unit("images"),
    )
    crop_min: float = Field(0.08, gt=0, le=1, description="Smallest share of the area a view keeps.")
    flip: bool = Field(True, description="Random horizontal flips of the views.")
    batch_size: int = Field(
        500, ge=1, le=1_000_000, description="Images a teacher forward pass.", json_schema_extra=unit("images")
    )
    top_k: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Logits that a stored label keeps, the highest; the others are read back as their mean. 0: all.",
    )
    bits: Literal[16, 8] = Field(
        16,
        description="Of a stored logit: float16, or 8 bits between the label's lowest and highest.",
        json_schema_extra=unit("bits"),
    )

    def keeps_all(self, classes: int) -> bool:
        """Whether a stored label has a logit for each class."""
        return not 0 < self.top_k < classes

    def label_bytes(self, classes: int) -> int:
        """Bytes of a stored label."""
        kept = classes if self.keeps_all(classes) else self.top_k
        total = kept * self.bits // 8 + (4 if self.bits == 8 else 0)
        if kept < classes:
            index = 1 if classes <= 2**8 else 2 if classes <= 2**15 else 4
            total += kept * index + 2
        return total

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
    epochs: int = Field(300, ge=1, le=100_000, description="Passes over the synthetic images.", json_schema_extra=BASIC)
    batch_size: int = Field(100, ge=2, le=1_000_000, description="Images a step.", json_schema_extra=unit("images"))
    accumulate: int = Field(
        1,
        ge=1,
        le=1_000_000,
        description="Parts a step's images are computed in, one after another, their gradients added up to the step's. "
        "Takes less memory; BatchNorm sees each part alone, so the result is another.",
        json_schema_extra=unit("parts") | LATER,
    )
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
    warmup_epochs: int = Field(0, ge=0, le=1_000_000, description="Epochs of linear warm-up before the schedule.")
    ema: float = Field(
        0.0, ge=0, lt=1, description="Decay a step of the averaged student that is judged and kept; 0: the last one."
    )
    eval_every: int = Field(
        10, ge=1, le=1_000_000, description="Epochs between evaluations; the last is always evaluated."
    )
    eval_batch: int = Field(500, ge=1, le=1_000_000, description="Images a forward pass of evaluation.")
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Compile the step; auto: on a GPU, where that repays its time within the run. As recover.compile.",
        json_schema_extra=LATER,
    )

    @model_validator(mode="after")
    def _students_and_labels(self) -> TrainConfig:
        if self.students and self.arch:
            raise ValueError("train.arch and train.students both name students: leave one of them empty")
        twice = next((name for name in self.students if self.students.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"train.students names '{twice}' twice: name each student once")
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"train.accumulate = {self.accumulate} does not divide train.batch_size = {self.batch_size} into equal "
                "parts of 2 images or more: choose numbers that do"
            )
        if self.augment != "none" and self.labels == "soft":
            raise ValueError(
                f"train.augment = '{self.augment}' changes images after the teacher has labelled them: set "
                "train.labels = 'hard', or train.augment = 'none'"
            )
        return self
