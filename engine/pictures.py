"""Image files: PNG rows, per-image PNGs in ImageFolder layout, the contact sheet."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from engine.rundir import write_whole

CONTACT_TILE = 64
CONTACT_COLUMNS = 10
CONTACT_ROWS = 40


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def to_pillow(image_CHW: torch.Tensor) -> Image.Image:
    """A uint8 (3, H, W) tensor as an RGB picture."""
    return Image.fromarray(np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy()))


def write_row(path: Path, images_NCHW: torch.Tensor) -> None:
    """Images side by side in one PNG."""
    write_whole(path, png_bytes(to_pillow(torch.cat(list(images_NCHW), dim=2))))


def image_path(folder: Path, class_id: str, label: int, ordinal: int, classes: int, ipc: int) -> Path:
    """``images/<class id>/class<label>_id<ordinal>.png``, zero-padded so that names sort as numbers do."""
    class_digits, digits = max(3, len(str(classes - 1))), max(3, len(str(ipc - 1)))
    return folder / class_id / f"class{label:0{class_digits}d}_id{ordinal:0{digits}d}.png"


def contact_sheet(images_NCHW: torch.Tensor, labels_N: torch.Tensor, names: tuple[str, ...]) -> Image.Image:
    """A row a class: its name and its first images; at most 40 rows of 10."""
    labels = labels_N.unique(sorted=True).tolist()[:CONTACT_ROWS]
    margin = 150
    columns = min(CONTACT_COLUMNS, int(torch.bincount(labels_N).max()))
    sheet = Image.new("RGB", (margin + columns * (CONTACT_TILE + 2), len(labels) * (CONTACT_TILE + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(labels):
        top = row * (CONTACT_TILE + 2)
        draw.text((6, top + CONTACT_TILE // 2 - 6), names[label][:22], fill="black")
        for column, index in enumerate((labels_N == label).nonzero().flatten()[:columns].tolist()):
            tile = to_pillow(images_NCHW[index])
            method = Image.Resampling.NEAREST if tile.width < CONTACT_TILE else Image.Resampling.BILINEAR
            sheet.paste(tile.resize((CONTACT_TILE, CONTACT_TILE), method), (margin + column * (CONTACT_TILE + 2), top))
    return sheet
