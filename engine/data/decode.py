"""One image file or byte string to a square uint8 RGB tensor."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from engine.catalog import NO_IMAGE
from engine.errors import DataError

#: More is no photograph but a file made to use up the memory: 64 million pixels are 192 MB decoded.
MOST_PIXELS = 64 << 20


def decode(content: Path | bytes, resolution: int, name: str, share: float = 1.0) -> torch.Tensor:
    """Decode, apply EXIF rotation, convert to RGB, cut the central square, resize (bilinear, antialiased).

    The square's side is a ``share`` of the image's shorter one. Greyscale, palette, CMYK and transparent files are
    converted (transparency onto black).
    Raises DataError naming the file where its content is no image, OSError where it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # Broken EXIF and palette transparency are repaired by the conversion itself.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as file:
                if file.width * file.height > MOST_PIXELS:
                    raise ValueError(f"it claims {file.width} × {file.height} pixels")
                image = ImageOps.exif_transpose(file).convert("RGB")
    except NO_IMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"image {name} cannot be decoded: {error}", "repair or remove it, or set data.on_corrupt = 'skip'"
        ) from None
    side = max(1, round(share * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = (left, top, left + side, top + side)
    if side != resolution:
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=square)
    elif image.size != (side, side):
        image = image.crop(square)
    return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())
