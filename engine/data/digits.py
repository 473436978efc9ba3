"""scikit-learn's bundled handwritten digits: 1,797 images of 8×8, ten classes; nothing is downloaded."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from engine.data.listing import Listing, Split


def listing() -> Listing:
    """The whole set; it has no split of its own. Levels 0..16 become 0..255, grey becomes RGB."""
    bunch = load_digits()
    images_NHW = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)
    labels_N = torch.from_numpy(bunch.target).long()
    names = tuple(str(digit) for digit in range(10))
    items = [image.expand(3, -1, -1).contiguous() for image in images_NHW]
    marks = ["sklearn"] * len(items)
    return Listing(
        "digits",
        names,
        names,
        Split(items, [f"digits/{i}" for i in range(len(items))], marks, labels_N),
        None,
    )
