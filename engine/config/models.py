"""The configuration of a run, defined once.

From these models come the TOML files, validation, ``--set`` overrides, the form's fields and the docs' table.
Each field carries its help text as ``description``, its bounds, and, in ``json_schema_extra``, ``unit`` and
``level`` ("basic" fields come first in the form).
"""

from __future__ import annotations

import re
import shlex
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from engine.config.distilled import RecoverConfig, RelabelConfig, TrainConfig
from engine.config.real import BarycenterConfig, DataConfig, SqueezeConfig, StatisticsConfig, TeacherConfig
from engine.config.section import BASIC, Names, Section, unit

DEVICE_PATTERN = r"^(auto|cpu|cuda|cuda:\d+)$"
DEVICES_PATTERN = r"^(all|cpu|cuda:\d+|(GPU|MIG)-[\w/-]+)$"


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
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Autocast of networks in squeeze, recover, relabel and train. auto: bf16 on a GPU and on a CPU "
        "with instructions for it (AVX-512 BF16, AMX), else fp32, decided at the first start and kept in config.toml. "
        "docs/engine.md.",
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
        json_schema_extra=unit("s"),
    )
    beat_seconds: float = Field(2.0, gt=0, le=60, description="Interval of heartbeats.", json_schema_extra=unit("s"))
    on_end: str = Field("", description="Command executed when the run ends; facts are in WMDD_* variables.")
    on_stall: str = Field("", description="Command executed when nothing was finished for run.stall_seconds.")
    stall_seconds: float = Field(
        300.0, gt=0, le=86400, description="Silence that counts as a stall.", json_schema_extra=unit("s")
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


#: Options whose "auto" is decided at a run's first start, by section; the run's config.toml holds what it came to.
SETTLED = {"squeeze": "compile", "recover": "compile", "train": "compile", "run": "precision"}


class RunConfig(Section):
    """Everything that determines a run."""

    name: str = Field("", max_length=80, description="A name to recognise the run by.", json_schema_extra=BASIC)
    group: str = Field("", max_length=80, description="The study a run belongs to; runs of a group stand together.")
    preset: str = Field("", description="The preset this configuration came from.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every random choice.", json_schema_extra=BASIC)
    ipc: int = Field(
        10, ge=1, le=1_000_000, description="Synthetic images per class.", json_schema_extra=unit("images", True)
    )
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
        nearest = recover.init == "patches" and recover.patch_choice == "barycenter"
        featureless = recover.objective == "sre2l" or recover.r_feature == 0 or self.barycenter.weights == "none"
        if nearest and featureless and recover.objective in ("wmdd", "sre2l", "start"):
            raise ValueError(
                "recover.patch_choice = 'barycenter' has no barycenters to compare with: set it to 'confidence', or "
                "recover.objective = 'wmdd', recover.r_feature above 0 and barycenter.weights = 'uniform'"
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
    def matches_no_class_statistics(self) -> bool:
        """Whether recovery asks nothing of the real images but what one teacher itself holds, as SRe2L's does."""
        recover, alone = self.recover, not self.teacher.committee
        return alone and recover.objective == "sre2l" and recover.bn == "global" and self.barycenter.weights == "none"

    def precision_of(self, stage: Literal["statistics", "recover"]) -> str:
        """Of a stage that has a precision of its own: that, or the run's where it is "auto"."""
        own: str = getattr(self, stage).precision
        return self.run.precision if own == "auto" else own

    def began_as(self, asked: RunConfig) -> bool:
        """Whether this configuration of a run is what was asked for, whatever an "auto" of it came to."""
        undecided = {
            name: getattr(self, name).model_copy(update={option: "auto"})
            for name, option in SETTLED.items()
            if getattr(getattr(asked, name), option) == "auto"
        }
        return self.model_copy(update=undecided) == asked

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
        if self.matches_no_class_statistics and not self.recover.quality:
            idle |= {"statistics", "barycenter"}
        return tuple(stage for stage in wanted if stage not in idle)


STAGES: tuple[str, ...] = get_args(RunSection.model_fields["until"].annotation)
