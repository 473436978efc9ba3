"""The configuration of a run: sections ``real`` and ``distilled``, the whole in ``models``, files in ``text``.

Torch-free.
"""

from engine.config.distilled import RecoverConfig, RelabelConfig, TrainConfig
from engine.config.models import SETTLED, STAGES, RunConfig, RunSection
from engine.config.real import BarycenterConfig, DataConfig, SqueezeConfig, StatisticsConfig, TeacherConfig
from engine.config.section import Section
from engine.config.text import describe, from_dict, from_toml, load, option_keys, override, to_toml

__all__ = [
    "SETTLED",
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
