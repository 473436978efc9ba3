"""Every place where a file of somebody else comes in, with a way to make hostile ones.

An entry is a function of hypothesis' ``data`` and a box to write in. It feeds what it drew to the product and accepts
two outcomes: it works, or one of our errors names what is wrong.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors.torch
import tomli_w
import torch
from guard import Trespass
from hypothesis import strategies as st
from PIL import Image

from engine import artifacts, catalog, checkpoints, config, events, models, pictures, presets, queueing, rundir
from engine.config import DataConfig
from engine.data import load_dataset
from engine.data.given import load_given
from engine.data.prepare import prepare
from engine.errors import EngineError
from engine.interchange.fkd import FkdLabels
from engine.models.checkpoint import load_into, load_state
from engine.softlabels import block_bytes, block_is_whole, read_soft_labels
from wmdd_tui.keymap import load_keymap
from wmdd_tui.store.comparison import compare
from wmdd_tui.store.curves import read_curves
from wmdd_tui.store.reader import EventTail
from wmdd_tui.store.runs import list_summaries
from wmdd_tui.store.view import RunView

CPU = torch.device("cpu")
HOSTILE = (
    "", " ", "-rf", "..", "../../x", "/etc/passwd", "a/b", "a\nb", "[red]x[/red]", "[/]", "\x1b[2J", "日本", "e\u0301",
    "\u202ex", "$HOME", "`id`", "%s", "{}", "nan", "inf", "-1", "1e999", "true", "[1]", "\u0000", "x" * 300, "~", "CON",
    ".hidden", "~nobody/x",
)  # fmt: skip
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.sampled_from([2**63, -(2**63), 1e308, 10**30])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
#: What a file system may hold: also bytes that are no UTF-8, which Python gives as lone surrogates.
names = st.one_of(
    st.sampled_from(HOSTILE), st.text(min_size=1, max_size=20), st.binary(min_size=1, max_size=6).map(os.fsdecode)
).filter(
    lambda text: text not in ("", ".", "..") and "/" not in text and "\0" not in text and len(os.fsencode(text)) < 200
)


def damaged(data: Any, good: bytes) -> bytes:
    """Bytes that were good: cut, repeated, overwritten, with something in between; or anything at all."""
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "repeat", "zero", "any", "deep", "good"]))
    at = data.draw(st.integers(0, max(0, len(good) - 1)))
    some = data.draw(st.binary(min_size=1, max_size=16))
    return {
        "cut": good[:at],
        "flip": good[:at] + some + good[at + len(some) :],
        "insert": good[:at] + some + good[at:],
        "repeat": good[:at] + good,
        "zero": good[:at] + bytes(len(good) - at),
        "any": some,
        "deep": b"[" * 20_000,
        "good": good,
    }[kind]


def refused(work: Callable[[], object]) -> None:
    """Either it works, or one of our errors with a message of one paragraph."""
    try:
        work()
    except EngineError as error:
        if not error.message or error.exit_code not in (1, 2):
            raise Trespass(f"an error that says nothing: {error!r}") from error


# --- configuration ----------------------------------------------------------------------------------------

GOOD_TOML = config.to_toml(presets.get("digits"))


def config_toml(data: Any, _box: Path) -> None:
    """Configuration files: damaged text, wrong values under right keys, wrong keys."""
    kind = data.draw(st.sampled_from(["damaged", "values", "tables"]))
    if kind == "damaged":
        text = damaged(data, GOOD_TOML.encode()).decode(errors="replace")
    elif kind == "values":
        key = data.draw(st.sampled_from(config.option_keys()))
        section, _, leaf = key.rpartition(".")
        with suppress(TypeError, ValueError):
            text = tomli_w.dumps({section: {leaf: data.draw(values)}} if section else {leaf: data.draw(values)})
            refused(lambda: _round_trip(text))
        return
    else:
        try:
            text = tomli_w.dumps(data.draw(st.dictionaries(texts, values, max_size=4)))
        except (TypeError, ValueError):
            return
    refused(lambda: _round_trip(text))


def _round_trip(text: str) -> None:
    settings = config.from_toml(text)
    assert config.from_toml(config.to_toml(settings)) == settings


def overrides(data: Any, box: Path) -> None:
    """``--set`` on the command line, and run directories made of what comes out."""
    keys = st.one_of(st.sampled_from(config.option_keys()), texts)
    given = data.draw(st.lists(st.tuples(keys, texts), max_size=3))

    def work() -> None:
        settings = config.override(presets.get("digits"), [f"{key}={value}" for key, value in given])
        run = rundir.create(settings)
        assert run.path.parent == box / "home" / "runs"
        assert rundir.RunDir(run.path).config() == settings

    refused(work)


def run_names(data: Any, box: Path) -> None:
    """Names of runs, as names and as references to a run."""
    name = data.draw(texts)

    def work() -> None:
        run = rundir.create(config.from_dict({**presets.get("digits").model_dump(mode="json"), "name": name}))
        assert run.path.parent == box / "home" / "runs"
        assert run.config().name == name

    refused(work)
    refused(lambda: rundir.find(data.draw(texts)))


def keymaps(data: Any, box: Path) -> None:
    """The user's own keys."""
    file = box / "keys.toml"
    file.write_bytes(damaged(data, b'"runs.open" = "o"\n"monitor.zoom_in" = "plus,z"\n[runs]\nopen = "x"\n'))
    refused(lambda: load_keymap(file))


# --- run directories --------------------------------------------------------------------------------------


def _good_events() -> bytes:
    found: Sequence[events.Event] = (
        events.Hello(stages=["squeeze"], classes=2, class_names=["a", "b"], chunks=1, iterations=5, layers=["x"]),
        events.Stage(stage="squeeze", what="begin"),
        events.Progress(stage="squeeze", done=1, total=3),
        events.Iters(chunk=0, first=0, total=[1.0, "nan"], ce=[1.0], feature=[1.0], bn=[1.0]),
        events.Layers(chunk=0, iteration=1, values=[1.0]),
        events.Metrics(stage="train", epoch=1, epochs=2, top1=50.0),
        events.Image(chunk=0, iteration=0, path="previews/../../x.png", classes=[1]),
        events.Beat(),
        events.End(status="finished"),
    )
    return b"".join(events._encoder.encode(event) + b"\n" for event in found)


GOOD_EVENTS = _good_events()


def event_files(data: Any, _box: Path) -> None:
    """Event files, process files and reports of a run directory, read by every reader."""
    run = rundir.create(presets.get("digits"))
    lines = [json.dumps(one).encode() for one in data.draw(st.lists(values, max_size=3))]
    kinds = st.fixed_dictionaries({"kind": st.sampled_from(sorted(events.KINDS))}, optional=dict.fromkeys(
        ["t", "schema", "stage", "done", "total", "chunk", "first", "iteration", "path", "classes", "layers", "epoch",
         "top1", "status", "values", "class_names", "chunks", "iterations", "seconds"], values))  # fmt: skip
    lines += [json.dumps(one).encode() for one in data.draw(st.lists(kinds, max_size=4))]
    run.events_file.write_bytes(damaged(data, GOOD_EVENTS) + b"\n" + b"\n".join(lines) + b"\n")
    run.process_file.write_bytes(damaged(data, json.dumps(data.draw(values)).encode()))
    run.report_file.write_bytes(damaged(data, json.dumps(data.draw(values)).encode()))
    assert rundir.state_of(run) in (*rundir.ALIVE, "stopped", "finished", "failed", "crashed")
    assert rundir.kill(run) is False
    list(events.read(run.events_file))
    tail, view = EventTail(run.events_file), RunView()
    while found := tail.poll():
        view.apply_all(found)
    assert len(list_summaries()) == 1
    refused(lambda: compare([run]))
    refused(lambda: read_curves(run, "x"))


def queue_tickets(data: Any, _box: Path) -> None:
    """Tickets in the queue's folder."""
    folder = queueing.root() / data.draw(st.sampled_from(["cpu", "cuda:0"]))
    folder.mkdir(parents=True)
    ticket = {"run_id": data.draw(texts), "path": data.draw(texts), "order": 1, "doing": "running", "since": 0.0}
    good = json.dumps(ticket | data.draw(st.dictionaries(st.sampled_from(sorted(ticket)), values, max_size=2)))
    (folder / "a.json").write_bytes(damaged(data, good.encode()))
    refused(queueing.places)


# --- checkpoints ------------------------------------------------------------------------------------------


def _body(data: Any) -> bytes:
    """A checkpoint's content, damaged before its checksum is made: torn by no crash, but forged."""
    state = data.draw(st.one_of(st.just({"serial": 1, "work": "w"}), values))
    try:
        good = checkpoints.pack({"x": torch.zeros(2)}, state)[checkpoints.DIGEST_BYTES :]
    except (TypeError, ValueError):
        good = b""
    return damaged(data, good)


def engine_checkpoints(data: Any, box: Path) -> None:
    """Checkpoints of a stage, soft labels and cached outputs."""
    import hashlib

    body = _body(data)
    forged = hashlib.sha256(body).digest() + body
    content = data.draw(st.sampled_from([forged, damaged(data, forged)]))
    for slot in checkpoints.SLOTS:
        (box / f"stage.{slot}.ckpt").write_bytes(content)
    told: list[str] = []
    found = checkpoints.Slots(box, "stage", "w").load(told.append)
    assert found is not None or told
    run = rundir.create(presets.get("digits"))
    path = run.labels / "epochs-00000-00001.safetensors"
    path.write_bytes(damaged(data, block_bytes(torch.zeros(2, 3, 4, dtype=torch.float16), "key")))
    if block_is_whole(path, (2, 3, 4), "key"):
        assert read_soft_labels(run, 1).shape == (3, 4)
    artifacts.Cache().keep("teacher", "key", content)


class _Evil:
    """Runs a program when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def _evil(data: Any, box: Path) -> Any:
    import subprocess

    return data.draw(
        st.sampled_from(
            [
                _Evil(os.system, f"touch {box}/../executed"),
                _Evil(subprocess.call, ["true"]),
                _Evil(eval, "__import__('os').mkdir('/tmp/wmdd-executed')"),
                _Evil(open, "/tmp/wmdd-executed", "w"),
                _Evil(getattr, "x", "join"),
                _Evil(torch.load, "/tmp/wmdd-executed"),
            ]
        )
    )


def teacher_checkpoints(data: Any, box: Path) -> None:
    """Checkpoints of teachers: PyTorch's and safetensors, damaged, of other structure, and with code in them."""
    network = models.build("convnet3", 3, 8, width=4)
    kind = data.draw(st.sampled_from(["structure", "code", "damaged", "safetensors", "authors"]))
    path = box / ("x.safetensors" if kind == "safetensors" else "x.pt")
    state: Any = network.state_dict()
    buffer = io.BytesIO()
    if kind == "structure":
        tensors = st.sampled_from([torch.zeros(2), torch.zeros(0), torch.tensor(1), torch.tensor(1j)])
        state = data.draw(st.dictionaries(texts, st.one_of(tensors, values), max_size=4))
        state = data.draw(st.sampled_from([state, [state], {"model": state}, {"state_dict": state}, (1, state)]))
    if kind == "code":
        state = {**state, "evil": _evil(data, box)}
    if kind == "authors":
        state = {"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3, "acc": np.float64(12.5)}
    if kind == "safetensors":
        content = damaged(data, safetensors.torch.save(state))
    elif kind == "code" and data.draw(st.booleans()):
        content = pickle.dumps(state)
    else:
        torch.save(state, buffer)
        content = buffer.getvalue() if kind in ("code", "authors") else damaged(data, buffer.getvalue())
    path.write_bytes(content)
    loaded = False

    def work() -> None:
        nonlocal loaded
        load_into(network, load_state(path), path, 3)
        loaded = True

    refused(work)
    assert loaded or kind != "authors", "the authors' format loads"
    assert not loaded or kind != "code", "code does not"


# --- data sets --------------------------------------------------------------------------------------------


def _load(**values: Any) -> None:
    refused(lambda: load_dataset(DataConfig.model_validate(values), 0, CPU))


def _good_cifar(data: Any, box: Path) -> bytes:
    pixels = np.zeros((10, 3072), dtype=np.uint8)
    content: Any = {b"data": pixels, b"labels": list(range(10))}
    changed = data.draw(st.sampled_from(["none", "code", "labels", "pixels", "anything"]))
    if changed == "code":
        content[b"labels"] = _evil(data, box)
    if changed == "labels":
        content[b"labels"] = data.draw(st.lists(scalars, max_size=12))
    if changed == "pixels":
        content[b"data"] = np.zeros(
            data.draw(st.integers(0, 5000)), dtype=data.draw(st.sampled_from(["u1", "f8", "O"]))
        )
    if changed == "anything":
        content = data.draw(values)
    return pickle.dumps(content, protocol=data.draw(st.sampled_from([2, 4])))


def cifar_archives(data: Any, box: Path) -> None:
    """CIFAR in pickles, binaries and tar archives, with code in the pickles."""
    kind = data.draw(st.sampled_from(["python", "binary", "tar"]))
    if kind == "binary":
        folder, suffix, good = box / "cifar-10-batches-bin", ".bin", bytes([0]) * 3073
    else:
        folder, suffix, good = box / "cifar-10-batches-py", "", _good_cifar(data, box)
    content = damaged(data, good)
    files = [f"{name}{suffix}" for name in (*[f"data_batch_{i}" for i in range(1, 6)], "test_batch")]
    if kind == "tar":
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in files:
                member = tarfile.TarInfo(data.draw(st.sampled_from(["../" * 4, "/", ""])) + name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        (box / "cifar.tar.gz").write_bytes(damaged(data, archive.getvalue()))
        _load(dataset="cifar10", path=str(box / "cifar.tar.gz"), resolution=32)
        return
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(content)
    _load(dataset="cifar10", path=str(box), resolution=32)


def _png(size: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


GOOD_IMAGES = [_png(), _png(1)]
for _form in ("JPEG", "WEBP", "BMP"):
    _buffer = io.BytesIO()
    Image.new("RGB", (12, 9)).save(_buffer, _form)
    GOOD_IMAGES.append(_buffer.getvalue())


def image_folders(data: Any, box: Path) -> None:
    """ImageFolder trees: hostile names of classes and files, damaged images, links out of the tree, name files."""
    root = box / "tree"
    classes = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    outside = box / "outside.png"
    outside.write_bytes(GOOD_IMAGES[0])
    for name in classes:
        folder = root / name
        with suppress(OSError):
            folder.mkdir(parents=True)
            for number in range(2):
                file = folder / f"{data.draw(names)[:40]}{number}.png"
                kind = data.draw(st.integers(0, 20))
                if kind < 4:
                    file.symlink_to([outside, box / "nowhere", file, folder][kind])
                elif kind == 4:
                    os.mkfifo(file)
                elif kind == 5:
                    file.mkdir()
                else:
                    file.write_bytes(damaged(data, data.draw(st.sampled_from(GOOD_IMAGES))))
    with suppress(OSError):
        (root / data.draw(st.sampled_from(catalog.NAME_FILES))).write_bytes(
            damaged(data, "\n".join(f"{name} a, b" for name in classes).encode(errors="surrogateescape"))
        )
    catalog.dataset_facts("imagefolder", root)

    def work() -> None:
        settings = DataConfig.model_validate(
            {
                "dataset": "imagefolder",
                "path": str(root),
                "resolution": 8,
                "on_corrupt": data.draw(st.sampled_from(["error", "skip"])),
            }
        )
        dataset = load_dataset(settings, 0, CPU)
        classes, out = len(dataset.class_ids), box / "images"
        for label, class_id in enumerate(dataset.class_ids):
            path = pictures.image_path(out, class_id, label, 0, classes, 1)
            assert path.parent.parent == out
            path.parent.mkdir(parents=True, exist_ok=True)
        labels_N = torch.arange(classes)
        pictures.contact_sheet(torch.zeros(classes, 3, 8, 8, dtype=torch.uint8), labels_N, dataset.class_names)
        writer = events.Writer(box / "events.jsonl")
        writer.write(events.Hello(class_names=list(dataset.class_names)))
        writer.close()
        assert len(list(events.read(box / "events.jsonl"))) == 1

    refused(work)


def given_sets(data: Any, box: Path) -> None:
    """Synthetic sets of somebody else: other folders, other counts, damaged images."""
    root = box / "set"
    for name in data.draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        with suppress(OSError):
            (root / name).mkdir(parents=True)
            for number in range(data.draw(st.integers(0, 3))):
                content = damaged(data, data.draw(st.sampled_from(GOOD_IMAGES)))
                (root / name / f"{number}{data.draw(st.sampled_from(['.png', '.txt', '.JPEG']))}").write_bytes(content)
    class_ids = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    refused(lambda: load_given(str(root), class_ids, data.draw(st.integers(1, 2)), 8))


def pseudo_labels(data: Any, box: Path) -> None:
    """Pseudo-label CSVs: damaged, with other columns, paths that lead elsewhere, labels that are no numbers."""
    tree = box / "tree"
    for split in ("train", "val"):
        for name in "01":
            (tree / split / name).mkdir(parents=True)
            (tree / split / name / "a.png").write_bytes(GOOD_IMAGES[0])
    columns = ["image_path", data.draw(st.sampled_from(["pseudo_label_class_index", "cluster_id", "x"]))]
    columns += data.draw(st.lists(st.sampled_from(["true_label_index", "confidence", "image_index"]), unique=True))
    paths = st.one_of(st.sampled_from(["train/0/a.png", "1/a.png", "val/0/a.png", "a.png", "./train/1/a.png"]), texts)
    labels = st.one_of(st.sampled_from(["0", "1", "2", "-1", "1.0", "9" * 30]), texts)
    sink = io.StringIO()
    writer = csv.writer(sink, quoting=data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])))
    writer.writerow(columns)
    for path in data.draw(st.lists(paths, max_size=4)):
        writer.writerow([path, *(data.draw(labels) for _ in columns[1:])][: data.draw(st.integers(1, 5))])
    (box / "x.csv").write_bytes(damaged(data, sink.getvalue().encode(errors="replace")))
    _load(
        dataset="imagefolder",
        path=str(tree),
        resolution=8,
        pseudo_labels=str(box / "x.csv"),
        pseudo_ids=data.draw(st.sampled_from(["classes", "clusters"])),
        on_mismatch=data.draw(st.sampled_from(["error", "skip"])),
    )


def fkd_labels(data: Any, box: Path) -> None:
    """FKD label files: damaged, of other structure, shapes and values, and with code in them."""
    kind = data.draw(st.sampled_from(["good", "values", "code", "structure"]))
    content: Any = [
        torch.tensor([[0.0, 0.0, 1.0, 0.5]] * 2), torch.tensor([True, False]), torch.tensor([1, 0]), np.float64(0.5),
        [np.int64(1), np.int64(0), np.int64(4), np.int64(8)], torch.zeros(2, 3).half(),
    ]  # fmt: skip
    if kind == "values":
        odd = [
            torch.zeros(0), torch.full((2, 3), torch.nan), torch.full((2, 4), -1.0), torch.full((2, 4), 9.0),
            torch.tensor([2, 7]), torch.tensor(1j), [torch.zeros(4)] * 2, torch.zeros(2, 3, dtype=torch.int64), [],
        ]  # fmt: skip
        content[data.draw(st.integers(0, 5))] = data.draw(st.one_of(st.sampled_from(odd), values))
    if kind == "structure":
        content = data.draw(st.one_of(st.just(content[:4]), st.just([*content, torch.ones(2)]), values))
    if kind == "code":
        content[data.draw(st.integers(0, 5))] = _evil(data, box)
    folder = box / "epoch_0"
    folder.mkdir()
    buffer = io.BytesIO()
    if kind == "code" and data.draw(st.booleans()):
        buffer.write(pickle.dumps(content))
    else:
        torch.save(content, buffer)
    good = buffer.getvalue()
    path = folder / f"batch_{data.draw(st.sampled_from(['0', '0', '1', 'x']))}.tar"
    path.write_bytes(good if kind in ("good", "code") else damaged(data, good))
    read = False

    def work() -> None:
        nonlocal read
        labels = FkdLabels(box, [0, 1], 3, 8, 1, lambda _message: None)
        assert labels.logits(0).shape == (2, 3)
        labels.plan(0).images(torch.zeros(2, 3, 8, 8), slice(0, 2))
        read = True

    refused(work)
    assert read or kind != "good" or path.name != "batch_0.tar", "files as SRe2L writes them are read"
    assert not read or kind != "code", "code is not"


def parquet_shards(data: Any, box: Path) -> None:
    """Parquet shards: damaged, with other columns, types and labels."""
    images = st.one_of(st.sampled_from(GOOD_IMAGES), st.binary(max_size=30), st.none())
    rows = data.draw(st.lists(st.tuples(images, st.one_of(st.integers(-2, 5), st.none())), max_size=6))
    columns: dict[str, Any] = {"image": [{"bytes": image} for image, _ in rows], "label": [label for _, label in rows]}
    for name in data.draw(st.lists(st.sampled_from(["image", "label"]), max_size=1)):
        columns[name] = data.draw(st.lists(texts, min_size=len(rows), max_size=len(rows)))
    sink = io.BytesIO()
    with suppress(UnicodeEncodeError):
        pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    (box / "train.parquet").write_bytes(damaged(data, sink.getvalue()))
    catalog.dataset_facts("parquet", box)
    _load(dataset="parquet", path=str(box), resolution=8, on_corrupt=data.draw(st.sampled_from(["error", "skip"])))


def label_files(data: Any, box: Path) -> None:
    """The label files of downloaded layouts: classes and images that lead elsewhere, other columns, other encodings."""
    source, target = box / "source", box / "target"
    for place in ("train/n1/images/a.JPEG", "train/n1/a.JPEG", "val/images/v0.JPEG", "val/v0.JPEG"):
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        (source / place).write_bytes(GOOD_IMAGES[0])
    separator = data.draw(st.sampled_from(["\t", " ", ",", "\n", "\0"]))
    words = data.draw(st.lists(texts, max_size=4))
    lines = [f"v0.JPEG{separator}{word}{separator}0" for word in words] + [f"v0{separator}{word}" for word in words]
    content = damaged(data, "\n".join(["ImageId,PredictionString", *lines, "v0.JPEG\tn1\t0"]).encode())
    layout, file = data.draw(
        st.sampled_from(
            [
                ("tiny-imagenet", "val/val_annotations.txt"),
                ("imagenet", "LOC_val_solution.csv"),
                ("imagenet", "val.txt"),
            ]
        )
    )
    (source / file).write_bytes(content)
    refused(lambda: prepare(layout, source, target, lambda _done, _total: None))
    for made in target.rglob("*"):
        assert made.resolve().is_relative_to(box)


ENTRIES: Sequence[Callable[[Any, Path], None]] = (
    config_toml,
    overrides,
    run_names,
    keymaps,
    event_files,
    queue_tickets,
    engine_checkpoints,
    teacher_checkpoints,
    cifar_archives,
    image_folders,
    given_sets,
    pseudo_labels,
    fkd_labels,
    parquet_shards,
    label_files,
)
