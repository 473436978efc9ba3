"""``export``: the distilled images as a data set of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from engine import rundir
from wmdd_tui.cli import options
from wmdd_tui.cli.progress import shown
from wmdd_tui.cli.wording import flowing


class Format(StrEnum):
    """Kinds of export."""

    imagefolder = "imagefolder"
    parquet = "parquet"
    safetensors = "safetensors"
    fkd = "fkd"


Run = Annotated[str, typer.Argument(metavar="RUN", help="Run id, unique prefix, name or path.")]
To = Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to make; it appears whole or not at all.")]
Form = Annotated[Format, typer.Option("--format", help="How the images are written.")]
Quality = Annotated[
    int | None, typer.Option("--quality", min=1, max=100, help="Write JPEG of this quality; PNG without it.")
]
Numbered = Annotated[
    bool, typer.Option("--numbered", help="Name class folders new000, new001, … as the authors' scripts do.")
]
Weights = Annotated[
    bool, typer.Option("--weights", help="With fkd: weights of the images too, which WMDD's scripts need, SRe2L's not.")
]
Licence = Annotated[str, typer.Option("--licence", "--license", help="Licence that the card states: cc-by-4.0.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier export there; nothing else is ever replaced.")]


@flowing
def export(
    run_name: Run,
    to: To,
    form: Form = Format.imagefolder,
    quality: Quality = None,
    numbered: Numbered = False,
    weights: Weights = False,
    licence: Licence = "",
    force: Force = False,
    as_json: options.Json = False,
) -> None:
    """Export the images of a run as a data set that other tools read.

    imagefolder: DIR/<class id>/class000_id000.png, the tree torchvision's ImageFolder and this program read; with
    --numbered DIR/new000/class000_id000.png, with --quality JPEG.

    parquet: DIR/train-00000-of-00001.parquet with the columns image (PNG or JPEG bytes), label and class_id (number of
    the class), class_folder, class_name and path; Hugging Face's `datasets` knows images and classes by itself.

    safetensors: DIR/images-00000-of-0000N.safetensors, each at most 512 MiB, with images_NCHW (uint8) and labels_N.

    fkd: DIR/images/new000/… and DIR/labels/epoch_0/batch_0.tar …, which SRe2L's training reads. Labels that were stored
    in FKD's order (relabel.order = 'fkd') are written as they are; those of other runs are made anew by their teacher.

    Beside the data lie dataset.json (where the images come from, their classes, seed, accuracies and the whole
    configuration) and README.md, a data set card with the contact sheet. A run whose images are not all there yet is
    refused.

    Example: wmdd-tui export baseline --to ~/distilled --format parquet

    Example: wmdd-tui export baseline --to ~/fkd --format fkd --quality 95
    """
    from wmdd_tui.store import exporting  # numpy takes longer to import than other commands take to run

    run = rundir.find(run_name)
    style = exporting.Style(quality or 0, numbered, weights, licence)
    with shown("writing images" if form is not Format.fkd else "writing labels") as report:
        done = exporting.export(run, to, form.value, force, report, style)
    if as_json:
        print(json.dumps({"run_id": run.id, **asdict(done), "folder": str(done.folder)}))
        return
    labels = f" ({decimal(done.label_bytes)} of it soft labels)" if done.label_bytes else ""
    text = f"{done.images} images of {done.classes} classes, {decimal(done.bytes)}{labels}, in {done.folder}"
    Console().print(Text(text), soft_wrap=True)
