"""``wmdd-tui config check``: what the engine says of a configuration, and what the run will amount to."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from wmdd_tui.cli import options
from wmdd_tui.cli.wording import flowing


@flowing
def config_check(
    file: options.ConfigFile = None,
    preset: options.Preset = "",
    assignments: options.Assignments = None,
    device: options.Device = None,
    seed: options.Seed = None,
    ipc: options.Ipc = None,
    as_json: options.Json = False,
) -> None:
    """Check a configuration, its data set, teacher and device, and estimate its images, time, memory and disk, without
    any work. Exit code 0 or 2.

    Times are learnt from the runs that finished on the same device; the estimate says from how many, and its error.
    """
    from wmdd_tui.store.devices import list_devices
    from wmdd_tui.store.estimate import estimate_here
    from wmdd_tui.store.launch import check

    settings = options.resolve(file, preset, assignments, None, device, seed, ipc)
    answer = check(settings)
    if answer["ok"]:
        found = estimate_here(settings, list_devices())
        if not as_json:
            from wmdd_tui.widgets.plan import table

            print("\n".join([*_ready(answer), *table(found)]))
        answer["estimate"] = found.facts()
    elif not as_json:
        print(f"{answer['error']}\n  {answer['remedy']}".rstrip(), file=sys.stderr)
    if as_json:
        print(json.dumps(answer))
    raise typer.Exit(0 if answer["ok"] else 2)


def _ready(answer: dict[str, Any]) -> list[str]:
    teacher = answer["teacher"]
    lines = [
        f"ready: teacher {teacher['arch']} with {teacher['parameters']:,} parameters and {teacher['bn_layers']} "
        f"BatchNorm layers, on {answer['device']}"
    ]
    return [*lines, *(f"warning: {sentence}" for sentence in answer["warnings"]), ""]
