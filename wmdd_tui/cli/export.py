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


Run = Annotated[str, typer.Argument(metavar="RUN", help="Run id, unique prefix, name or path.")]
To = Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to make; it appears whole or not at all.")]
Form = Annotated[Format, typer.Option("--format", help="How the images are written.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier export there; nothing else is ever replaced.")]


@flowing
def export(
    run_name: Run, to: To, form: Form = Format.imagefolder, force: Force = False, as_json: options.Json = False
) -> None:
    """Export the images of a run as a data set that other tools read.

    imagefolder: DIR/<class id>/class000_id000.png, the tree torchvision's ImageFolder and this program read.

    parquet: DIR/train-00000-of-00001.parquet with the columns image (PNG bytes), label (number of the class), class_id,
    class_name and path; Hugging Face's `datasets` knows images and classes without being told.

    safetensors: DIR/images-00000-of-0000N.safetensors, each at most 512 MiB, with images_NCHW (uint8) and labels_N.

    Beside the data lies dataset.json: where the images come from, their classes, seed, accuracies and the whole
    configuration. A run whose images are not all there yet is refused.

    Example: wmdd-tui export baseline --to ~/distilled --format parquet
    """
    from wmdd_tui.store import exporting  # numpy takes longer to import than other commands take to run

    run = rundir.find(run_name)
    with shown("writing images") as report:
        done = exporting.export(run, to, form.value, force, report)
    if as_json:
        print(json.dumps({"run_id": run.id, **asdict(done), "folder": str(done.folder)}))
        return
    text = f"{done.images} images of {done.classes} classes, {decimal(done.bytes)}, in {done.folder}"
    Console().print(Text(text), soft_wrap=True)
