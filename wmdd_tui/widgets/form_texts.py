"""What the form of a new run says of data sets, devices and mistakes. Pure functions."""

from __future__ import annotations

from collections import Counter

from engine.catalog import DatasetFacts
from wmdd_tui.store.devices import Device
from wmdd_tui.theme import size


def dataset_text(facts: DatasetFacts) -> str:
    """A data set as the picker offers it: what it holds, or what is wrong with it."""
    if facts.problem:
        return f"{facts.name} ({facts.kind}): UNUSABLE: {facts.problem}"
    images = f"{facts.train_images} + {facts.val_images} images" if facts.val_images else f"{facts.train_images} images"
    parts = [f"{facts.classes} classes", images]
    parts += ["×".join(str(side) for side in facts.native_size) + " px"] if facts.native_size else []
    parts += [size(facts.bytes)] if facts.bytes else []
    return f"{facts.name} ({facts.kind}): {', '.join(parts)}"


def device_text(device: Device, busy: Counter[str]) -> str:
    """A device as the picker offers it: its memory, and what runs and waits there."""
    room = f", {size(device.free)} of {size(device.total)} free" if device.total else ""
    count = busy[device.key]
    return f"{device.name}: {device.title}{room}" + (f", {count} run{'s' * (count != 1)} there" if count else "")


def problem_text(errors: dict[str, str]) -> str:
    """What is wrong, in a line or two; each field says its own."""
    first = next(iter(errors.values()), "")
    wrong = [key for key in errors if key]
    return first if len(errors) < 2 else f"{len(errors)} fields are wrong ({', '.join(wrong)}); the first: {first}"
