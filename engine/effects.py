"""Options that a configuration sets without any effect: said as warnings, never passed over in silence. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config import RunConfig

STEP_OPTIONS = (
    "iterations", "lr", "beta1", "beta2", "tv", "l2", "init", "augment", "crop_min", "flip", "roll", "curriculum",
    "milestone", "precision", "micro_batch", "checkpoint_every", "preview_every",
)  # fmt: skip


def without_effect(config: RunConfig) -> list[str]:
    """One sentence for each reason, naming the options that differ from their defaults for nothing."""
    default = RunConfig()
    sentences = []
    for reason, section, names in _idle(config):
        own, usual = getattr(config, section), getattr(default, section)
        fields = names or tuple(type(own).model_fields)
        changed = [name for name in fields if getattr(own, name) != getattr(usual, name)]
        if changed:
            told = ", ".join(f"{section}.{name} = {getattr(own, name)!r}" for name in changed)
            sentences.append(f"no effect, since {reason}: {told}")
    return sentences


def _idle(config: RunConfig) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Reason, section, and the options that are idle for it (no names: the whole section)."""
    teacher, recover, relabel, train = config.teacher, config.recover, config.relabel, config.train
    if config.data.dataset == "digits":
        yield "data.dataset = 'digits' is built in", "data", ("path", "on_corrupt", "workers")
    if teacher.source != "train":
        yield f"the teacher is loaded (teacher.source = '{teacher.source}')", "squeeze", ()
    if not teacher.arch.startswith("convnet") and not train.arch.startswith("convnet"):
        yield f"{teacher.arch} has no width to choose", "teacher", ("width",)
    if teacher.source != "torchvision":
        yield "the teacher's weights are not torchvision's", "teacher", ("weights",)
    if config.statistics.variance == "exact":
        yield "statistics.variance = 'exact' needs no loading batch", "statistics", ("loading_batch",)
    if config.barycenter.weights == "none":
        yield "barycenter.weights = 'none'", "barycenter", ("iterations", "tolerance", "restarts")
    if recover.objective == "sre2l":
        yield "recover.objective = 'sre2l' has cross-entropy alone", "recover", ("r_wb", "r_feature")
    if recover.objective in ("real", "given"):
        yield f"recover.objective = '{recover.objective}' optimises nothing", "recover", STEP_OPTIONS
    elif recover.curriculum == "none":
        yield "recover.curriculum = 'none'", "recover", ("milestone",)
    if train.labels == "hard":
        yield "train.labels = 'hard' asks for no soft labels", "relabel", ("batch_size",)
        yield "train.labels = 'hard' has no distillation loss", "train", ("temperature",)
    if relabel.mix == "none":
        yield "relabel.mix = 'none'", "relabel", ("alpha", "mix_group")
