"""``wmdd-tui train``: the whole pipeline, or a student on real images with labels from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from engine import config, rundir
from engine.errors import ConfigError
from wmdd_tui.cli import foreground, options
from wmdd_tui.cli.wording import flowing
from wmdd_tui.store.real_data import base_for, data_assignments

Pseudo = Annotated[
    Path | None,
    typer.Option("--pseudo-labels", metavar="FILE", help="CSV of labels for the training images; no distillation."),
]
Clusters = Annotated[bool, typer.Option("--clusters", help="The labels are clusters; each is matched with a class.")]
Skip = Annotated[
    bool, typer.Option("--skip-mismatches", help="Leave out rows and images that do not match, rather than refuse.")
]


@flowing
def train(
    file: options.ConfigFile = None,
    preset: options.Preset = "",
    data: options.Data = None,
    pseudo_labels: Pseudo = None,
    clusters: Clusters = False,
    skip_mismatches: Skip = False,
    assignments: options.Assignments = None,
    name: options.Name = None,
    device: options.Device = None,
    seed: options.Seed = None,
    ipc: options.Ipc = None,
    detach: options.Detach = False,
    as_json: options.Json = False,
) -> None:
    """Run up to and including train: a student on the synthetic images, scored on real ones.

    With --pseudo-labels nothing is distilled: the student is trained on all real training images with the labels of a
    CSV file (image_path, pseudo_label_class_index) in place of their own, and scored on the true labels of the
    validation images. Rows and images that do not match are counted and named, and refused unless --skip-mismatches.
    Noise rate and purity are told where true classes are known. With --clusters the labels (cluster_id, if there is
    such a column) number clusters, each of which is matched with a class by optimal assignment.

    Example: wmdd-tui train --data ~/data/imagenette --pseudo-labels labels.csv --clusters
    """
    if pseudo_labels is not None and not pseudo_labels.expanduser().is_file():
        raise ConfigError(f"--pseudo-labels '{pseudo_labels}' is no file", "name an existing CSV file")
    settings = settings_of(
        file, preset, data, pseudo_labels, clusters, skip_mismatches, assignments, name, device, seed, ipc
    )
    raise typer.Exit(foreground.start(rundir.create(settings), detach, as_json))


def settings_of(
    file: Path | None,
    preset: str,
    data: Path | None,
    pseudo_labels: Path | None,
    clusters: bool,
    skip_mismatches: bool,
    assignments: list[str] | None,
    name: str | None,
    device: str | None,
    seed: int | None,
    ipc: int | None,
) -> config.RunConfig:
    """The configuration that the command line asks for. Raises ConfigError, DataError."""
    if pseudo_labels is None and (clusters or skip_mismatches):
        said = "--clusters" if clusters else "--skip-mismatches"
        raise ConfigError(f"{said} is about --pseudo-labels, which is not given", "name the CSV file")
    own = ['run.until="train"']
    if data is not None:
        own += data_assignments(data)
    if pseudo_labels is not None:
        path = json.dumps(str(pseudo_labels.expanduser().absolute()), ensure_ascii=False)
        own += [f"data.pseudo_labels={path}", 'train.images="real"', 'train.labels="hard"']
    own += ['data.pseudo_ids="clusters"'] * clusters + ['data.on_mismatch="skip"'] * skip_mismatches
    base = base_for(data) if data is not None and file is None and not preset else None
    settings = options.resolve(file, preset, [*own, *(assignments or [])], name, device, seed, ipc, base)
    if pseudo_labels is not None and file is None and not any(one.startswith("recover.") for one in assignments or []):
        # What a preset says of images that are not made would be warned of as if it had been asked for.
        settings = settings.model_copy(update={"recover": config.RecoverConfig()})
    return settings
