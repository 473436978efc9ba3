"""compare, export and plot on small recorded runs, without an engine."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner

from engine import config, events, presets, rundir
from engine.errors import EngineError, InputError, RunDirError, RunFailure
from wmdd_tui.cli.commands import app
from wmdd_tui.store import comparison, exporting, figures, placing

runner = CliRunner()
NAMES = ["tench", "English springer"]
IDS = ["n01440764", "n02102040"]
IPC, SIDE, ITERATIONS = 3, 4, 6


def answer(*arguments: str) -> Any:
    """The last line of a command as JSON."""
    result = runner.invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def pixels(label: int, ordinal: int) -> np.ndarray:
    return np.random.default_rng([label, ordinal]).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def make_run(name: str, *changes: str, top1: float = 80.0, recovered: bool = True) -> rundir.RunDir:
    """A finished run of two classes and two chunks."""
    settings = config.override(presets.get("digits"), [f'name="{name}"', f"ipc={IPC}", *changes])
    run = rundir.create(settings)
    writer = events.Writer(run.events_file)

    def emit(*found: events.Event) -> None:
        for event in found:
            writer.write(event)

    emit(
        events.Hello(
            classes=2, class_names=NAMES, ipc=IPC, chunks=2, iterations=ITERATIONS, layers=["a", "b"], t=1000.0
        ),
        events.Stage(stage="squeeze", what="end", seconds=7.5, cached=True),
        events.Metrics(stage="squeeze", epoch=1, epochs=1, top1=95.0),
    )
    for chunk in range(2):
        values: list[events.Number] = [float(10 * (chunk + 1) - step) for step in range(ITERATIONS)]
        emit(events.Iters(chunk=chunk, first=0, total=values, ce=values, feature=values, bn=values))
        emit(*[events.Layers(chunk=chunk, iteration=step, values=[1.0 + step, 2.0]) for step in (0, 3)])
    emit(
        events.Metrics(stage="train", epoch=10, epochs=20, top1=top1 + 5, top5=98.0),
        events.Metrics(stage="train", epoch=20, epochs=20, top1=top1, top5=97.0),
        events.End(status="finished"),
    )
    writer.close()
    report: dict[str, Any] = {"student_top1": top1, "teacher_top1": 95.0, "w2": 1.25, "stages": {"squeeze": 7.5}}
    if recovered:
        report["image_count"] = 2 * IPC
        for label, class_id in enumerate(IDS):
            (run.images / class_id).mkdir()
            for ordinal in range(IPC):
                file = run.images / class_id / f"class{label:03d}_id{ordinal:03d}.png"
                Image.fromarray(pixels(label, ordinal)).save(file)
    run.report_file.write_text(json.dumps(report))
    return run


# --- compare ----------------------------------------------------------------------------------------------


def test_compare_tells_results_and_only_what_differs() -> None:
    make_run("one")
    make_run("two", "recover.r_bn=99", "train.labels=hard", top1=60.0)
    found = answer("compare", "one", "two")
    assert found["differences"] == {
        "name": ["one", "two"],
        "recover.r_bn": [presets.get("digits").recover.r_bn, 99],
        "relabel.storage": ["stored", "online"],
        "train.labels": ["soft", "hard"],
    }
    first, second = found["runs"]
    assert [first["student_top1"], second["student_top1"]] == [80.0, 60.0]
    assert (first["best_top1"], first["best_top5"], first["best_epoch"]) == (85.0, 98.0, 10)
    assert (first["student_top5"], first["teacher_top1"], first["w2"]) == (97.0, 95.0, 1.25)
    assert (first["stages"], first["cached"], first["state"]) == ({"squeeze": 7.5}, ["squeeze"], "finished")
    # The last iterations are 10 - 5 and 20 - 5.
    assert first["losses"]["total"] == 10.0


def test_compare_shows_both_tables() -> None:
    make_run("[bold]one")
    make_run("two", "seed=7")
    text = runner.invoke(app, ["compare", "two", "."], catch_exceptions=True)
    assert isinstance(text.exception, RunDirError)
    runs = [run.id for run in rundir.list_runs()]
    shown = runner.invoke(app, ["compare", *runs], catch_exceptions=False, env={"COLUMNS": "120"}).stdout
    assert "[bold]one" in shown
    assert "7.5 (cache)" in shown
    assert any(line.split() == ["seed", "7", "0"] or line.split() == ["seed", "0", "7"] for line in shown.splitlines())


def test_compare_wants_two_runs_each_once() -> None:
    run = make_run("one")
    with pytest.raises(InputError, match="two runs or more"):
        comparison.compare([run])
    with pytest.raises(InputError, match="named twice"):
        comparison.compare([run, rundir.RunDir(run.path / ".." / run.id)])


def test_compare_survives_damage() -> None:
    good, bad = make_run("good"), make_run("bad")
    bad.config_file.write_text("nonsense = [")
    bad.report_file.write_text('{"student_top1": "high", "stages": [], "seconds": {}}')
    with bad.events_file.open("ab") as file:
        file.write(
            b'garbage\n{"kind":"iters","chunk":1,"first":6,"total":["nan"],"ce":["inf"],"bn":["x"]}\n{"kind":"it'
        )
    found = comparison.compare([good, bad])
    assert found.results[1].state == "unreadable"
    assert found.results[1].student_top1 == 80.0
    assert dict(found.differences)["seed"] == [0, comparison.UNKNOWN]
    assert comparison.result_rows(found.results)
    text = json.dumps(comparison.as_json(found), allow_nan=False)
    assert json.loads(text)["runs"][1]["losses"]["total"] == "nan"


def test_runs_of_one_name_go_by_their_ids() -> None:
    runs = [make_run("same"), make_run("same"), make_run("other")]
    assert comparison.run_labels(runs) == [runs[0].id, runs[1].id, "other"]


# --- export -----------------------------------------------------------------------------------------------


def test_export_an_image_folder(tmp_path: Path) -> None:
    run = make_run("one")
    found = answer("export", "one", "--to", str(tmp_path / "set"))
    assert (found["images"], found["classes"], found["format"]) == (6, 2, "imagefolder")
    for label, class_id in enumerate(IDS):
        for ordinal in range(IPC):
            name = f"{class_id}/class{label:03d}_id{ordinal:03d}.png"
            assert (tmp_path / "set" / name).read_bytes() == (run.images / name).read_bytes()
    card = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert card["exported"]["run"] == run.id
    assert card["class_names"] == NAMES
    assert found["bytes"] == sum(path.stat().st_size for path in (tmp_path / "set").rglob("*") if path.is_file())


def test_export_parquet(tmp_path: Path) -> None:
    run = make_run("one")
    answer("export", "one", "--to", str(tmp_path / "set"), "--format", "parquet")
    table = pyarrow.parquet.read_table(tmp_path / "set" / "train-00000-of-00001.parquet")
    assert table.column_names == ["image", "label", "class_id", "class_folder", "class_name", "path"]
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert [row["class_id"] for row in rows] == [0, 0, 0, 1, 1, 1]
    assert [(row["class_folder"], row["class_name"]) for row in (rows[0], rows[-1])] == [*zip(IDS, NAMES, strict=True)]
    assert rows[4]["image"]["bytes"] == (run.images / rows[4]["path"]).read_bytes()


def test_exported_parquet_tells_hugging_face_what_its_columns_are(tmp_path: Path) -> None:
    """`datasets` takes features from this entry of the schema; of a struct without it, pictures would stay bytes."""
    make_run("one")
    answer("export", "one", "--to", str(tmp_path / "set"), "--format", "parquet", "--quality", "90")
    schema = pyarrow.parquet.read_schema(tmp_path / "set" / "train-00000-of-00001.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": NAMES, "_type": "ClassLabel"}
    assert features["class_id"] == {"dtype": "int64", "_type": "Value"}
    assert schema.field("image").type == pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    assert (schema.field("label").type, schema.field("class_id").type) == (pyarrow.int64(), pyarrow.int64())
    row = pyarrow.parquet.read_table(tmp_path / "set" / "train-00000-of-00001.parquet").to_pylist()[0]["image"]
    assert (Image.open(io.BytesIO(row["bytes"])).format, row["path"][-4:]) == ("JPEG", ".jpg")


def test_exported_parquet_is_a_data_set_of_ours(tmp_path: Path) -> None:
    from engine.data import parquet

    make_run("one")
    answer("export", "one", "--to", str(tmp_path / "set"), "--format", "parquet")
    found = parquet.listing(str(tmp_path / "set"))
    assert found.class_names == tuple(NAMES)
    assert found.train.labels_N.tolist() == [0, 0, 0, 1, 1, 1]


def test_export_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run("one")
    monkeypatch.setattr(exporting, "SHARD_BYTES", 4 * 3 * SIDE * SIDE)
    found = answer("export", "one", "--to", str(tmp_path / "set"), "--format", "safetensors")
    assert found["files"][:2] == ["images-00000-of-00002.safetensors", "images-00001-of-00002.safetensors"]
    assert found["files"][2:] == ["dataset.json", "README.md"]
    shards = [load_file(tmp_path / "set" / name) for name in found["files"][:2]]
    images_NCHW = np.concatenate([shard["images_NCHW"] for shard in shards])
    labels_N = np.concatenate([shard["labels_N"] for shard in shards])
    assert images_NCHW.dtype == np.uint8
    assert labels_N.tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(images_NCHW[5], pixels(1, 2).transpose(2, 0, 1))


def test_export_never_overwrites_by_accident(tmp_path: Path) -> None:
    run = make_run("one")
    target = tmp_path / "set"
    exporting.export(run, target, "imagefolder")
    with pytest.raises(InputError, match="add --force"):
        exporting.export(run, target, "parquet")
    assert exporting.export(run, target, "parquet", force=True).files[0] == "train-00000-of-00001.parquet"
    assert sorted(path.name for path in target.iterdir()) == [
        "README.md",
        "dataset.json",
        "train-00000-of-00001.parquet",
    ]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no earlier export"):
        exporting.export(run, mine, "parquet", force=True)
    other = make_run("other")
    (other.images / "dataset.json").write_text('{"name": "other"}')
    with pytest.raises(InputError, match="no earlier export"):
        exporting.export(run, other.images, "imagefolder", force=True)
    assert (mine / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("where", ["images", "new", ".."])
def test_export_stays_out_of_the_run(where: str) -> None:
    run = make_run("one")
    with pytest.raises(InputError, match="part of the run itself"):
        exporting.export(run, run.path / where, "imagefolder", force=True)


def test_a_failing_export_leaves_nothing(tmp_path: Path) -> None:
    run = make_run("one")
    exporting.export(run, tmp_path / "set", "parquet")
    before = (tmp_path / "set" / "dataset.json").read_bytes()
    damaged = run.images / IDS[1] / "class001_id002.png"
    damaged.write_bytes(b"no image")
    with pytest.raises(EngineError, match="cannot be read"):
        exporting.export(run, tmp_path / "set", "safetensors", force=True)
    damaged.unlink()
    damaged.mkdir()
    with pytest.raises(RunFailure, match="cannot write"):
        exporting.export(run, tmp_path / "new", "imagefolder")
    assert [path.name for path in tmp_path.iterdir() if path.name != "wmdd-home"] == ["set"]
    assert (tmp_path / "set" / "dataset.json").read_bytes() == before


def test_export_refuses_a_run_without_its_images(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="has no images") as refused:
        exporting.export(make_run("none", recovered=False), tmp_path / "set", "parquet")
    assert "run.until" in refused.value.remedy
    run = make_run("some")
    (run.images / IDS[0] / "class000_id001.png").unlink()
    with pytest.raises(RunDirError, match="5 of 6 images"):
        exporting.export(run, tmp_path / "set", "parquet")
    assert not (tmp_path / "set").exists()


# --- plot -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_plot_pictures(tmp_path: Path, kind: str, magic: bytes) -> None:
    make_run("one")
    file = tmp_path / "new" / f"one.{kind}"
    assert answer("plot", "one", "--out", str(file))["panels"] == ["losses", "bn", "metrics"]
    assert file.read_bytes().startswith(magic)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_plot_is_reproducible_and_says_what_it_shows(tmp_path: Path) -> None:
    runs = [(make_run("costs $5 and $6"), "costs $5 and $6"), (make_run("_two"), "_two")]
    figures.plot(runs, tmp_path / "a.svg")
    figures.plot(runs, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    text = (tmp_path / "a.svg").read_text()
    assert "costs $5 and $6: student" in text
    assert "_two: teacher" in text
    figures.plot(runs[:1], tmp_path / "c.svg", ["losses"])
    text = (tmp_path / "c.svg").read_text()
    assert "cross-entropy" in text
    assert "top-1" not in text


def test_plot_csv_holds_every_value_once(tmp_path: Path) -> None:
    run = make_run("one")
    writer = events.Writer(run.events_file)  # a resumed process does the last two iterations over again
    writer.write(events.Iters(chunk=1, first=4, total=[16.0, 15.0, 14.0], ce=[], feature=[], bn=[]))
    writer.close()
    answer("plot", "one", "--out", str(tmp_path / "one.csv"))
    with (tmp_path / "one.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    totals = [(int(row["chunk"]), int(row["step"]), float(row["value"])) for row in rows if row["name"] == "total"]
    expected = [(chunk, step, 10.0 * (chunk + 1) - step) for chunk in range(2) for step in range(ITERATIONS)]
    assert totals == [*expected, (1, 6, 14.0)]
    assert [row["value"] for row in rows if row["panel"] == "bn" and row["name"] == "a"] == ["1.0", "4.0"] * 2
    assert [row["step"] for row in rows if row["stage"] == "train" and row["name"] == "top1"] == ["10", "20"]


def test_plot_refusals(tmp_path: Path) -> None:
    run = make_run("one")
    empty = rundir.create(presets.get("digits"))
    with pytest.raises(InputError, match=r"which kind of file"):
        figures.plot([(run, "one")], tmp_path / "one.jpg")
    with pytest.raises(RunDirError, match="recorded no losses"):
        figures.plot([(empty, "empty")], tmp_path / "one.svg")
    (tmp_path / "one.svg").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        figures.plot([(run, "one")], tmp_path / "one.svg")
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        figures.plot([(run, "one")], tmp_path / "folder.svg", force=True)
    assert (tmp_path / "one.svg").read_text() == "mine"
    assert runner.invoke(app, ["plot", "one", "--out", "x.svg", "--panel", "nonsense"]).exit_code == 2


def test_plot_takes_any_numbers(tmp_path: Path) -> None:
    run = rundir.create(presets.get("digits"))
    writer = events.Writer(run.events_file)
    writer.write(events.Hello(chunks=1, iterations=3, layers=["only"]))
    writer.write(events.Iters(chunk=0, first=0, total=["nan", "inf", -1.0], ce=["nan"] * 3, feature=[0.0] * 3, bn=[]))
    writer.write(events.Layers(chunk=0, iteration=0, values=["nan", 0.0]))
    writer.close()
    assert figures.plot([(run, "odd")], tmp_path / "odd.svg") == ["losses", "bn"]


def test_a_disk_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailure, match="cannot write"):
        placing.place_file(tmp_path / "file" / "x.svg", False, lambda path: path.touch())


def test_matplotlib_is_loaded_only_by_plot() -> None:
    code = (
        "import sys, wmdd_tui.cli, wmdd_tui.store.figures, wmdd_tui.store.exporting, wmdd_tui.store.animation\n"
        "print({'matplotlib', 'torch', 'pyarrow', 'textual'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
