"""Networks of the timm library, by its names, where the extra ``timm`` is installed."""

from __future__ import annotations

from typing import Any

from torch import nn

from engine.errors import ConfigError

#: Vision transformers by size, with patches that suit the images: about as many a side as at 224 px.
SIZES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
}
PATCHES = 14
INSTALL = "install the extra: pip install 'wmdd-tui[timm]'"


def _timm() -> Any:
    """The library, or None where it is not installed."""
    try:
        import timm  # some seconds, which only those who want one of its networks pay
    except ImportError:
        return None
    return timm


def knows(arch: str) -> bool:
    """Whether a name is timm's. Raises ConfigError for a vision transformer by size where timm is not installed."""
    timm = _timm()
    if timm is None:
        if arch in SIZES:
            raise ConfigError(f"{arch} is a network of timm, which is not installed", INSTALL)
        return False
    return arch in SIZES or bool(timm.is_model(arch))


def patch_size(resolution: int) -> int:
    """Side of a patch in pixels: the largest divisor of the image's side that leaves 14 patches a side or more."""
    most = max(2, resolution // PATCHES)
    return next(size for size in range(most, 0, -1) if resolution % size == 0)


def build(arch: str, classes: int, resolution: int) -> nn.Module:
    """A network without trained weights, for square images of ``resolution``. Raises ConfigError."""
    timm = _timm()
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": classes}
    if arch in SIZES:
        arguments["patch_size"] = patch_size(resolution)
    name = SIZES.get(arch, arch)
    try:
        try:
            network: nn.Module = timm.create_model(name, img_size=resolution, **arguments)
        except TypeError:  # convolutional networks take images of any size and no such argument
            network = timm.create_model(name, **arguments)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"data.resolution = {resolution} is not possible with timm's {name}: {told}",
            "choose another resolution or network (vit_tiny, vit_small and vit_base fit their patches to the images)",
        ) from None
    return network
