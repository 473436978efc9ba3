"""Teachers and students by name, built and initialised deterministically."""

from __future__ import annotations

import difflib

import torch
import torchvision
from torch import nn

from engine.config import RunConfig
from engine.errors import ConfigError
from engine.models import timm_names
from engine.models.convnet import ConvNet
from engine.models.instrument import bn_layers
from engine.randomness import derive_seed

CONVNETS = {"convnet3": 3, "convnet4": 4}
SMALL_RESOLUTION = 64


def names() -> list[str]:
    """All architectures that can be built without timm."""
    return [*CONVNETS, *torchvision.models.list_models(module=torchvision.models)]


def build(arch: str, classes: int, resolution: int, stem: str = "auto", width: int = 64, seed: int = 0) -> nn.Module:
    """A network for square images, initialised from a seed. Raises ConfigError for an unknown name or stem.

    A name that torchvision does not know may be one of timm's, or "vit_tiny", "vit_small" or "vit_base".
    ResNet stems: "standard" 7×7 stride 2 and pooling; "small" 3×3 stride 1 without pooling (what "auto" takes up to
    64 px); "tiny" 3×3 stride 2 padding 3 without pooling (the authors' for Tiny-ImageNet).
    """
    known = names()
    from_timm = arch not in known and timm_names.knows(arch)
    if arch not in known and not from_timm:
        near = difflib.get_close_matches(arch, [*known, *timm_names.SIZES], n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(
            f"unknown architecture '{arch}'{hint}",
            "`wmdd-tui teachers` lists those that can be built; timm's names need its extra: "
            "pip install 'wmdd-tui[timm]'",
        )
    if stem not in ("auto", "standard") and from_timm:
        raise ConfigError(f"teacher.stem = '{stem}' is for torchvision's ResNets, not {arch}", "use stem = 'auto'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch in CONVNETS:
            return ConvNet(CONVNETS[arch], width, classes)
        if from_timm:
            return timm_names.build(arch, classes, resolution)
        arguments: dict[str, int | bool] = {"image_size": resolution} if arch.startswith("vit_") else {}
        if arch in ("googlenet", "inception_v3"):
            arguments = {"aux_logits": False, "init_weights": True}
        network: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=classes, **arguments)
        if isinstance(network, torchvision.models.ResNet):
            _set_stem(network, stem, resolution)
        elif stem not in ("auto", "standard"):
            raise ConfigError(f"teacher.stem = '{stem}' is for ResNets; {arch} has only its own", "use stem = 'auto'")
    return network


def _set_stem(network: nn.Module, stem: str, resolution: int) -> None:
    if stem == "auto":
        stem = "small" if resolution <= SMALL_RESOLUTION else "standard"
    if stem == "standard":
        return
    stride, padding = (1, 1) if stem == "small" else (2, 3)
    network.conv1 = nn.Conv2d(3, 64, 3, stride=stride, padding=padding, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def initialise(network: nn.Module, seed: int, *keys: str | int) -> None:
    """Reset every layer's parameters from one purpose's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", *keys))
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def build_teacher(config: RunConfig, classes: int) -> nn.Module:
    """The teacher's network, not yet trained or loaded. Raises ConfigError where it cannot serve.

    It must take images of ``data.resolution`` and have BatchNorm, which the method matches.
    """
    teacher = config.teacher
    network = build(teacher.arch, classes, config.data.resolution, teacher.stem, teacher.width)
    if not bn_layers(network):
        raise ConfigError(
            f"teacher {teacher.arch} has no BatchNorm layer, whose statistics recovery matches",
            "take a teacher with BatchNorm: resnet18, convnet3, vgg11_bn, …",
        )
    require_resolution(network, teacher.arch, config.data.resolution)
    return network


def build_student(config: RunConfig, classes: int, arch: str = "") -> nn.Module:
    """A student's network as training begins with it; ``arch`` is one of ``train.students``, by default the first.

    Convolutional networks with BatchNorm are initialised alike; others (transformers) as their library does it, for
    there the scheme is part of the network. Both are drawn from ``student_seed``. Raises ConfigError where the network
    cannot take the images.
    """
    arch = arch or config.student_archs[0]
    stem = config.teacher.stem if arch == config.teacher.arch else "auto"
    seed = derive_seed(config.student_seed, "weights", "student")
    network = build(arch, classes, config.data.resolution, stem, config.teacher.width, seed)
    require_resolution(network, arch, config.data.resolution)
    if bn_layers(network):
        initialise(network, config.student_seed, "student")
    return network


def require_resolution(network: nn.Module, arch: str, resolution: int) -> None:
    """Try one blank image: what a network can take is known to nobody but itself."""
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, resolution, resolution))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(
            f"data.resolution = {resolution} is not possible with {arch}: {str(error).splitlines()[0]}",
            "choose a larger resolution or another architecture (convnet3 takes 8 px and more)",
        ) from None
    finally:
        network.train(training)
