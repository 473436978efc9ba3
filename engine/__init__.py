"""The dataset-distillation engine: squeeze, statistics, barycenter, recover, relabel, train.

The modules ``config``, ``presets``, ``catalog``, ``events``, ``rundir``, ``errors`` and ``artifacts``
import no torch; everything else does and is run as ``python -m engine RUN_DIR``.
"""

__version__ = "0.1.0"
