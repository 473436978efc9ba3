"""Commands about the machine and what lies on it: data sets, teachers, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from engine import catalog
from engine.errors import DataError
from wmdd_tui.cli import options
from wmdd_tui.store import health
from wmdd_tui.store.teachers import earlier_teachers

#: Of what doctor finds.
COLOURS = {"ok": "", "note": "yellow", "problem": "bold red"}

datasets_app = typer.Typer(help="Find data sets and prepare downloaded ones.", invoke_without_command=True)


@datasets_app.callback()
def datasets(
    context: typer.Context,
    roots: Annotated[
        list[Path] | None, typer.Option("--root", help="Data set, or folder of several; $WMDD_DATA by default.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the data sets found: wmdd-tui datasets --root ~/data"""
    if context.invoked_subcommand is not None:
        return
    for root in roots or []:
        if not root.expanduser().is_dir():
            what = "is a file" if root.expanduser().exists() else "does not exist"
            raise DataError(f"--root '{root}' {what}", "name an existing folder: that of a data set, or of several")
    named = os.environ.get("WMDD_DATA", "")
    found = catalog.find_datasets([root.expanduser() for root in roots or ([Path(named)] if named else [])])
    rows = [catalog.DatasetFacts("digits", "", "digits", 10, 1438, 359, (8, 8)), *found]
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    for row in rows:
        size = "×".join(str(side) for side in row.native_size) if row.native_size else ""
        facts = f"{row.classes} classes, {row.train_images} + {row.val_images} images {size}"
        Console().print(Text(f"{row.name:20} {row.kind:12} {row.problem or facts}  {row.path}"), soft_wrap=True)


@datasets_app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="tiny-imagenet or imagenet.")],
    source: Annotated[Path, typer.Option("--from", help="The folder as downloaded and unpacked.")],
    target: Annotated[Path, typer.Option("--to", help="The ImageFolder tree to make.")],
) -> None:
    """Put a downloaded layout into ImageFolder form, by links where the file system has them."""
    done = subprocess.run([sys.executable, "-m", "engine", "prepare", name, str(source), str(target)], check=False)
    raise typer.Exit(done.returncode)


def teachers(as_json: options.Json = False) -> None:
    """List architectures that can be trained, and teachers of earlier runs, each once."""
    earlier = earlier_teachers()
    if as_json:
        runs = [
            {"run": one.run, "arch": one.config.teacher.arch, "dataset": one.config.data.dataset, "path": one.path,
             "resolution": one.config.data.resolution, "top1": one.top1}
            for one in earlier
        ]  # fmt: skip
        print(json.dumps({"architectures": catalog.ARCHITECTURES, "transformers": catalog.TRANSFORMERS, "runs": runs}))
        return
    print("architectures: " + ", ".join(catalog.ARCHITECTURES) + ", any torchvision classifier with BatchNorm")
    print("as students also: " + ", ".join(catalog.TRANSFORMERS) + ", any torchvision classifier")
    print("with the extra timm (pip install 'wmdd-tui[timm]'): vit_tiny, vit_small, vit_base and timm's own names")
    if earlier:
        print("of earlier runs; take one with --set teacher.source=run --set teacher.path=RUN")
    for one in earlier:
        Console().print(Text(f"  {one.text}"), soft_wrap=True)


def doctor(as_json: options.Json = False) -> None:
    """Say what this machine offers and what would keep a run from working.

    Exit code 1 where something is a problem; notes are none.
    """
    console = Console(soft_wrap=True)
    with Console(stderr=True).status("asking PyTorch"):
        facts = health.gather()
    found = health.findings(facts)
    if as_json:
        print(json.dumps({**facts, "findings": [asdict(one) for one in found]}))
    else:
        for one in found:
            console.print(Text(f"{one.state:8} {one.name:10} {one.value}", COLOURS[one.state]))
            if one.remedy:
                console.print(Text(f"{'':19} {one.remedy}"))
    raise typer.Exit(any(one.state == "problem" for one in found))
