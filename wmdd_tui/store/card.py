"""The data set card: a page of Markdown about exported images, as Hugging Face's hub shows one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.filesize import decimal

SHEET = "contact_sheet.png"
#: Which files of an export are its images, for loaders that would take all they find.
DATA_FILES = {"imagefolder": "*/*.*", "fkd": "images/*/*.*", "parquet": "train-*.parquet"}
UNSTATED = "not stated"
#: Upper bounds of the hub's size categories.
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SHOWN_CLASSES = 50
READING = {
    "imagefolder": '`torchvision.datasets.ImageFolder("DIR")`, `datasets.load_dataset("DIR")`, or `wmdd-tui evaluate '
    "DIR`",
    "parquet": '`datasets.load_dataset("parquet", data_files="DIR/*.parquet")`, `datasets.load_dataset("DIR")`, or '
    "`wmdd-tui evaluate DIR`",
    "safetensors": "`safetensors.torch.load_file(FILE)`: `images_NCHW` (uint8), `labels_N` (int64)",
    "fkd": "`wmdd-tui evaluate DIR`; SRe2L's training: `train_FKD.py --train-dir DIR/images --fkd-path DIR/labels`",
}


def card_markdown(card: Mapping[str, Any], form: str, sheet: bool) -> str:
    """The page, from what ``dataset.json`` says. Values are quoted so that no name becomes markup."""
    return "\n".join([*_front(card, form), "", *_body(card, form, sheet)]) + "\n"


def _front(card: Mapping[str, Any], form: str) -> Iterator[str]:
    """YAML that the hub reads; JSON strings are YAML strings."""
    images = card["exported"]["images"]
    yield "---"
    yield f"license: {json.dumps(card.get('licence') or 'unknown', ensure_ascii=False)}"
    yield f"pretty_name: {json.dumps(str(card.get('name', '')), ensure_ascii=False)}"
    yield "task_categories:\n- image-classification"
    yield f"size_categories:\n- {next((name for most, name in SIZES if images < most), '1M<n<10M')}"
    yield "tags:\n- dataset-distillation"
    if form in DATA_FILES:
        yield f'configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: "{DATA_FILES[form]}"'
    yield "---"


def _body(card: Mapping[str, Any], form: str, sheet: bool) -> Iterator[str]:
    exported, config = card["exported"], card.get("config")
    config = config if isinstance(config, dict) else {}
    names = [str(name) for name in card.get("class_names", [])]
    yield f"# {_plain(card.get('name', ''))}"
    yield ""
    yield (
        f"{exported['images']} synthetic images of {len(names)} classes, distilled by wmdd-tui "
        f"{exported['wmdd-tui']} from {_plain(card.get('source', 'a data set'))}. They are made to train classifiers "
        "on, not to be looked at: they carry traces of the photographs they stand for."
    )
    if sheet:
        yield f"\n![The first images of each class]({SHEET})"
    yield "\n## Facts\n"
    yield "| | |\n|---|---|"
    yield from (f"| {name} | {_plain(value)} |" for name, value in _facts(card, config))
    yield f"\nRead it with {READING[form]}."
    yield "\n## Accuracies\n"
    yield from _accuracies(card)
    yield "\n## Classes\n"
    ids = [str(one) for one in card.get("class_ids", [])]
    pairs = list(zip(ids, names, strict=False))
    yield "| number | folder | name |\n|---|---|---|"
    yield from (f"| {at} | {_plain(one)} | {_plain(name)} |" for at, (one, name) in enumerate(pairs[:SHOWN_CLASSES]))
    if len(pairs) > SHOWN_CLASSES:
        yield f"\nand {len(pairs) - SHOWN_CLASSES} more, in `dataset.json`."
    yield "\n## Configuration\n"
    yield "```json"
    yield json.dumps(config, indent=1, ensure_ascii=False).replace("```", "` ` `")
    yield "```"


def _facts(card: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    exported = card["exported"]
    quality = exported.get("jpeg_quality")
    teacher, recover = config.get("teacher", {}), config.get("recover", {})
    yield "licence", card.get("licence") or UNSTATED
    yield "images of a class", card.get("ipc", UNSTATED)
    yield "resolution", f"{card['resolution']} px" if "resolution" in card else UNSTATED
    yield "files", f"JPEG of quality {quality}" if quality else "without loss"
    yield "size", decimal(exported["bytes"] - exported["label_bytes"])
    yield "soft labels", decimal(exported["label_bytes"]) if exported["label_bytes"] else "none in this export"
    yield "teacher", f"{teacher.get('arch', UNSTATED)}, SHA-256 {str(card.get('teacher_sha256', ''))[:16]}"
    yield "objective", recover.get("objective", UNSTATED)
    yield "seed", card.get("seed", UNSTATED)
    yield "run", exported["run"]


def _accuracies(card: Mapping[str, Any]) -> Iterator[str]:
    """What students and teacher reached on real validation images; of the run's one seed, and said so."""
    known = card.get("accuracies")
    known = known if isinstance(known, dict) else {}
    rows = [
        (text, known.get(name))
        for name, text in (
            ("teacher_top1", "teacher, top-1"), ("student_top1", "student, top-1"), ("student_top5", "student, top-5"),
            ("best_top1", "student, best evaluated epoch, top-1"),
        )
    ]  # fmt: skip
    if not any(isinstance(value, int | float) for _, value in rows):
        yield "The run ended before a student was trained."
        return
    yield "On the real validation images, one seed; `wmdd-tui evaluate DIR --repeats 3` gives the spread.\n"
    yield "| network | % |\n|---|---|"
    yield from (f"| {text} | {value:.2f} |" for text, value in rows if isinstance(value, int | float))


def _plain(value: Any) -> str:
    """A value as text of a table's cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
