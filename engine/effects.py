"""Options that a configuration sets without any effect: said as warnings, never passed over in silence. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from engine.config import RunConfig

STEP_OPTIONS = (
    "iterations", "lr", "beta1", "beta2", "tv", "l2", "augment", "crop_min", "flip", "roll", "roll_both", "curriculum",
    "milestone", "precision", "compile", "micro_batch", "concurrent", "checkpoint_every", "preview_every",
    "verify_every",
)  # fmt: skip
PATCH_OPTIONS = ("patches_per_image", "patch_choice", "patch_photos", "patch_crops", "patch_crop_min")


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
    if config.run.devices:
        yield "run.devices names the devices", "run", ("device",)
    if config.data.dataset == "digits":
        yield "data.dataset = 'digits' is built in", "data", ("path", "on_corrupt", "workers", "crop")
    elif config.data.dataset in ("cifar10", "cifar100"):
        yield f"images of data.dataset = '{config.data.dataset}' are taken whole", "data", ("crop",)
    if not config.data.pseudo_labels:
        yield "there are no data.pseudo_labels", "data", ("pseudo_ids", "on_mismatch")
    if teacher.source != "train":
        yield f"the teacher is loaded (teacher.source = '{teacher.source}')", "squeeze", ()
    else:
        yield from _idle_of_squeeze(config)
    if not any(arch.startswith("convnet") for arch in (teacher.arch, *teacher.committee, *config.student_archs)):
        yield f"{teacher.arch} has no width to choose", "teacher", ("width",)
    if teacher.source != "torchvision":
        yield "the teacher's weights are not torchvision's", "teacher", ("weights",)
    if config.statistics.variance == "exact":
        yield "statistics.variance = 'exact' needs no loading batch", "statistics", ("loading_batch",)
    if config.barycenter.weights == "none":
        yield "barycenter.weights = 'none'", "barycenter", ("iterations", "tolerance", "restarts")
    if recover.objective == "sre2l":
        yield "recover.objective = 'sre2l' has cross-entropy alone", "recover", ("r_wb", "r_feature")
    if train.images == "real":
        yield "train.images = 'real' bypasses distillation", "recover", ()
    elif recover.objective in ("real", "given"):
        idle = (*STEP_OPTIONS, "init", *PATCH_OPTIONS)
        yield f"recover.objective = '{recover.objective}' optimises nothing", "recover", idle
    elif recover.objective == "start":
        yield "recover.objective = 'start' optimises nothing", "recover", STEP_OPTIONS
    elif recover.curriculum == "none":
        yield "recover.curriculum = 'none'", "recover", ("milestone",)
    if recover.roll == 0 and recover.objective in ("wmdd", "sre2l") and train.images != "real":
        yield "recover.roll = 0 shifts nothing", "recover", ("roll_both",)
    if not recover.verifier and train.images != "real":
        yield "there is no recover.verifier", "recover", ("verify_every",)
    if recover.objective in ("wmdd", "sre2l", "start") and train.images != "real":
        if recover.init != "patches":
            yield f"recover.init = '{recover.init}'", "recover", PATCH_OPTIONS
        elif recover.patch_crops == 1:
            yield "recover.patch_crops = 1 takes whole photographs", "recover", ("patch_crop_min",)
    if train.labels == "hard":
        yield "train.labels = 'hard' asks for no soft labels", "relabel", ("batch_size",)
        yield "train.labels = 'hard' has no distillation loss", "train", ("temperature", "loss", "gt_weight")
    elif train.loss == "mse-gt":
        yield "train.loss = 'mse-gt' compares logits as they are", "train", ("temperature",)
    else:
        yield f"train.loss = '{train.loss}' takes the soft labels alone", "train", ("gt_weight",)
    if train.augment == "none":
        yield "train.augment = 'none'", "train", ("randaugment_ops", "randaugment_magnitude")
    if train.optimizer == "adamw":
        yield "train.optimizer = 'adamw' has no momentum to choose", "train", ("momentum",)
    if relabel.storage == "fkd" and train.labels == "soft":
        names = ("order", "mix", "alpha", "mix_group", "crop_min", "flip", "batch_size", "top_k", "bits")
        yield "relabel.storage = 'fkd' has views and mixing of its own", "relabel", names
    elif relabel.storage != "stored":
        yield f"relabel.storage = '{relabel.storage}' stores no labels", "relabel", ("top_k", "bits")
    if relabel.mix == "none":
        yield "relabel.mix = 'none'", "relabel", ("alpha", "mix_group")


def _idle_of_squeeze(config: RunConfig) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    squeeze = config.squeeze
    if squeeze.schedule == "cosine":
        yield "squeeze.schedule = 'cosine'", "squeeze", ("gamma", "step_epochs")
    elif squeeze.schedule == "exponential":
        yield "squeeze.schedule = 'exponential'", "squeeze", ("step_epochs",)
    for name, option in (("randaugment", "randaugment_magnitude"), ("augmix", "augmix_severity")):
        if squeeze.augment != name:
            yield f"squeeze.augment = '{squeeze.augment}'", "squeeze", (option,)
    if squeeze.optimizer == "adamw":
        yield "squeeze.optimizer = 'adamw' has no momentum to choose", "squeeze", ("momentum",)
    if not squeeze.ema:
        yield "squeeze.ema = 0", "squeeze", ("ema_every",)
