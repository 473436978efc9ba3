"""The dataset-distillation engine: squeeze, statistics, barycenter, recover, relabel, train.

The modules ``config``, ``presets``, ``catalog``, ``events``, ``rundir``, ``errors`` and ``artifacts``
import no torch; everything else does and is run as ``python -m engine RUN_DIR``.
"""

__version__ = "0.1.0"

STAGE_HELP = {
    "squeeze": "train or load the teacher on real images.",
    "statistics": "per-class BatchNorm statistics and features of the real images, in one pass.",
    "barycenter": "Wasserstein barycenters of each class's features.",
    "recover": "optimise the synthetic images.",
    "relabel": "soft labels of augmented views by the teacher.",
    "train": "train the student and score it on real validation images.",
}
