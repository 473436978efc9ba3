"""The configuration of a run: ``models`` define it once, ``text`` reads and writes it. Torch-free."""

from engine.config.models import (
    STAGES,
    BarycenterConfig,
    DataConfig,
    RecoverConfig,
    RelabelConfig,
    RunConfig,
    RunSection,
    Section,
    SqueezeConfig,
    StatisticsConfig,
    TeacherConfig,
    TrainConfig,
)
from engine.config.text import describe, from_dict, from_toml, load, option_keys, override, to_toml

__all__ = [
    "STAGES",
    "BarycenterConfig",
    "DataConfig",
    "RecoverConfig",
    "RelabelConfig",
    "RunConfig",
    "RunSection",
    "Section",
    "SqueezeConfig",
    "StatisticsConfig",
    "TeacherConfig",
    "TrainConfig",
    "describe",
    "from_dict",
    "from_toml",
    "load",
    "option_keys",
    "override",
    "to_toml",
]
