"""Several students and teachers, as the screens and commands show them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from engine import events, presets, rundir
from engine.config import override
from wmdd_tui.cli import tables
from wmdd_tui.cli.commands import app
from wmdd_tui.store.command_line import command_for
from wmdd_tui.store.comparison import read_result, setting_text
from wmdd_tui.store.counts import DataCounts
from wmdd_tui.store.curves import read_curves, table
from wmdd_tui.store.runs import summarise
from wmdd_tui.store.view import RunView
from wmdd_tui.store.workload import StageLoad, loads_of
from wmdd_tui.widgets.config_form import _text as shown_as
from wmdd_tui.widgets.config_form import options
from wmdd_tui.widgets.views import accuracy_curves, metric_rows

METRICS = [
    events.Metrics(stage="teacher", epoch=0, epochs=0, top1=95.0),
    events.Metrics(stage="committee", student="convnet4", epoch=0, epochs=0, top1=15.0),
    events.Metrics(stage="train", student="convnet3", epoch=1, epochs=2, loss=2.0),
    events.Metrics(stage="train", student="convnet3", epoch=2, epochs=2, loss=1.0, top1=80.0, top5=99.0),
    events.Metrics(stage="cross", student="vit_tiny", epoch=1, epochs=2, loss=3.0),
    events.Metrics(stage="cross", student="vit_tiny", epoch=2, epochs=2, loss=2.5, top1=40.0, top5=90.0),
]
DIGITS = DataCounts(10, 1438, 359, 64)


@pytest.fixture
def run() -> rundir.RunDir:
    made = rundir.create(override(presets.get("digits"), ["train.students=convnet3,vit_tiny"]))
    writer = events.Writer(made.events_file)
    writer.write(events.Hello(stages=["train"]))
    for event in METRICS:
        writer.write(event)
    writer.close()
    return made


def test_the_evaluation_panel_names_each_student() -> None:
    view = RunView()
    view.apply_all(METRICS)
    assert [row[0] for row in metric_rows(view) if row[3]] == [
        "teacher", "committee convnet4", "train convnet3", "train vit_tiny",
    ]  # fmt: skip
    curves = accuracy_curves(view)
    assert [name for name, _ in curves.series] == ["convnet3 top-1 %", "vit_tiny", "teacher"]
    assert [series.last for _, series in curves.series] == [80.0, 40.0, 95.0]
    assert len(set(curves.slots)) == 3


def test_a_verifier_is_named_with_its_chunk() -> None:
    looks = [
        events.Metrics(stage="verifier", student="vgg", chunk=chunk, epoch=100, epochs=300, loss=1.0, top1=10.0 * chunk)
        for chunk in (0, 1)
    ]
    several, one = RunView(), RunView()
    several.apply_all([events.Hello(stages=["recover"], chunks=2), *looks, *METRICS])
    assert metric_rows(several)[:2] == [
        ("verifier vgg chunk 1", "100/300", "1", "0.00", ""), ("verifier vgg chunk 2", "100/300", "1", "10.00", ""),
    ]  # fmt: skip
    one.apply_all([events.Hello(stages=["recover"], chunks=1), looks[0]])
    assert metric_rows(one)[0][0] == "verifier vgg"
    before, with_it = RunView(), accuracy_curves(several)
    before.apply_all(METRICS)
    assert [name for name, _ in with_it.series] == [name for name, _ in accuracy_curves(before).series]


def test_the_table_of_curves_has_a_verifiers_chunks(run: rundir.RunDir) -> None:
    writer = events.Writer(run.events_file)
    for chunk in (0, 1):
        writer.write(events.Metrics(stage="verifier", student="vgg", chunk=chunk, epoch=9, epochs=9, top1=5.0 + chunk))
    writer.close()
    rows = [row[3:] for row in table(run, "run") if row[2] == "verifier vgg" and row[5] == "top1"]
    assert rows == [(0, 9, "top1", 5.0), (1, 9, "top1", 6.0)]


def test_a_run_has_the_figures_of_its_first_student_and_teacher(run: rundir.RunDir) -> None:
    assert summarise(run).last_top1 == 80.0
    curves = read_curves(run, "run")
    assert (curves.student, curves.teacher_top1) == ({2: 80.0}, 95.0)
    result = read_result(run, run.config())
    assert (result.student_top1, result.teacher_top1) == (80.0, 95.0)
    named = {row[2] for row in table(run, "run") if row[1] == "metrics"}
    assert named == {"teacher", "committee convnet4", "train convnet3", "cross vit_tiny"}


def test_show_has_the_cross_architecture_table(run: rundir.RunDir) -> None:
    students = [
        {"arch": "convnet3", "parameters": 12345, "top1": 80.0, "top5": 99.0, "best_top1": 81.0, "best_epoch": 1},
        {"arch": "[vit]_tiny", "parameters": 5_500_000, "top1": 40.0, "top5": 90.0, "best_top1": 41.0, "best_epoch": 2},
    ]
    committee = [{"teacher": "convnet4", "top1": 94.25, "w2": 1.5}]
    run.report_file.write_text(json.dumps({"students": students, "committee": committee}))
    shown = CliRunner().invoke(app, ["show", run.id], catch_exceptions=False).stdout
    for text in ("[vit]_tiny", "12,345", "5,500,000", "41.00", "further teacher", "94.25"):
        assert text in shown
    assert "{'arch'" not in shown


@pytest.mark.parametrize(
    "value", [None, 3, "x", [1, 2], [{}], [{"arch": None, "top1": "high", "parameters": True}] * 2]
)
def test_any_report_makes_tables_or_none(value: object) -> None:
    assert len(tables.of_report({"students": value, "committee": value})) <= 2


def test_lists_in_the_form_are_text_not_choices() -> None:
    by_key = {option.key: option for option in options()}
    assert by_key["train.students"].choices == ()
    assert by_key["train.loss"].choices == ("kl", "mse-gt", "soft-ce")
    assert shown_as(["convnet3", "vit_tiny"]) == "convnet3, vit_tiny"
    assert setting_text(["convnet3", "vit_tiny"]) == "convnet3, vit_tiny"


def test_the_command_of_a_configuration_with_lists_starts_the_same() -> None:
    settings = override(presets.get("digits"), ["train.students=convnet3,vit_tiny", "teacher.committee=convnet4"])
    command = command_for(settings, "digits")
    assert """'train.students=["convnet3", "vit_tiny"]'""" in command
    assert (
        override(presets.get("digits"), ['train.students=["convnet3", "vit_tiny"]', 'teacher.committee=["convnet4"]'])
        == settings
    )


def _loads(*changes: str) -> dict[str, StageLoad]:
    settings = override(presets.get("digits"), list(changes))
    return {load.stage: load for load in loads_of(settings, DIGITS, False, True)}


def test_estimates_count_every_student_and_teacher() -> None:
    one, both = _loads("train.arch=convnet4"), _loads("train.students=convnet3,convnet4")
    alone = _loads()
    assert both["train"].work.macs == pytest.approx(one["train"].work.macs + alone["train"].work.macs)
    assert both["train"].memory == max(one["train"].memory, alone["train"].memory)
    members = _loads("teacher.committee=convnet4")
    for stage in ("squeeze", "statistics", "recover", "relabel"):
        assert members[stage].work.macs > 1.5 * alone[stage].work.macs, stage
    assert members["recover"].disk == alone["recover"].disk, "images are written once"
    assert members["train"] == alone["train"]
    assert not _loads("train.students=convnet3,vit_tiny")["train"].known
