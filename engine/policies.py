"""Automatic augmentation of single images as a function of (seed, purpose, epoch, image): torchvision's transforms.

They draw from the global generator, which is set for each image and put back. Shapes: B images of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torchvision.transforms import InterpolationMode, v2

from engine.augment import Views, apply_views
from engine.config import SqueezeConfig
from engine.data import normalise
from engine.randomness import derive_seed

#: Changes one image (3, H, W).
Change = Callable[[torch.Tensor], torch.Tensor]
POLICIES = {
    "autoaugment": v2.AutoAugmentPolicy.IMAGENET,
    "autoaugment-cifar10": v2.AutoAugmentPolicy.CIFAR10,
    "autoaugment-svhn": v2.AutoAugmentPolicy.SVHN,
}


def each(
    images_BCHW: torch.Tensor, numbers: Iterable[int], change: Change, seed: int, *keys: str | int
) -> torch.Tensor:
    """Every image of a batch changed by ``change``, which draws what ``seed``, ``keys`` and its number determine."""
    changed = []
    # Drawn on the CPU, whatever the device of the images: equal seeds give equal operations everywhere.
    with torch.random.fork_rng(devices=[]):
        for number, image_CHW in zip(numbers, images_BCHW, strict=True):
            torch.manual_seed(derive_seed(seed, *keys, number))
            changed.append(change(image_CHW))
    return torch.stack(changed)


def policy(config: SqueezeConfig) -> Change | None:
    """What ``squeeze.augment`` does to a uint8 image, as torchvision's scripts have it; None for nothing."""
    bilinear = InterpolationMode.BILINEAR
    if config.augment == "none":
        return None
    change: Change
    if config.augment == "randaugment":
        change = v2.RandAugment(magnitude=config.randaugment_magnitude, interpolation=bilinear)
    elif config.augment == "trivialaugment":
        change = v2.TrivialAugmentWide(interpolation=bilinear)
    elif config.augment == "augmix":
        mixing = v2.AugMix(severity=config.augmix_severity, interpolation=bilinear)

        def change(image_CHW: torch.Tensor) -> torch.Tensor:  # it draws its shares where the image lies
            return torch.as_tensor(mixing(image_CHW.cpu())).to(image_CHW.device)
    else:
        change = v2.AutoAugment(POLICIES[config.augment], interpolation=bilinear)
    return change


def teacher_inputs(
    config: SqueezeConfig,
    images_BCHW: torch.Tensor,
    views: Views,
    numbers: list[int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    epoch: int,
) -> torch.Tensor:
    """What the teacher sees of uint8 images in an epoch: their views, augmented in 8 bits, normalised, erased in part.

    ``numbers`` are the images' places in the training set, of which what is drawn for each is a function.
    """
    change = policy(config)
    if change is None:
        inputs = apply_views(normalise(images_BCHW, mean, std), views)
    else:
        seen = apply_views(images_BCHW.float(), views).round_().clamp_(0, 255).to(torch.uint8)
        inputs = normalise(each(seen, numbers, change, seed, "squeeze-augment", epoch), mean, std)
    if config.erase:
        inputs = each(inputs, numbers, v2.RandomErasing(config.erase), seed, "squeeze-erase", epoch)
    return inputs


def mixed(
    config: SqueezeConfig, inputs_BCHW: torch.Tensor, labels_B: torch.Tensor, classes: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch's images mixed among themselves, and their labels: classes as they were, or their shares (B, C)."""
    ways: list[v2.Transform] = []
    if config.mixup:
        ways.append(v2.MixUp(alpha=config.mixup, num_classes=classes))
    if config.cutmix:
        ways.append(v2.CutMix(alpha=config.cutmix, num_classes=classes))
    if not ways or len(labels_B) == 0:
        return inputs_BCHW, labels_B
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        images, labels = v2.RandomChoice(ways)(inputs_BCHW, labels_B)
    return images, labels
