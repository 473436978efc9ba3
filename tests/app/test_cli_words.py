"""What the commands answer to options in the wrong place, wrong values, and names that could mean several runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from engine import config, events, presets, rundir
from engine.errors import EngineError
from wmdd_tui.cli import opening
from wmdd_tui.cli.commands import app

runner = CliRunner()
OF_THE_DASHBOARD = [
    (["--readonly"], {"readonly": True}),
    (["--ascii"], {"ascii": True}),
    (["--slow-link"], {"slow_link": True}),
    (["--theme", "light"], {"theme": "light"}),
]


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: str) -> str:
    """What is said of a command line that cannot be used."""
    with pytest.raises(EngineError) as caught:
        runner.invoke(app, list(arguments), catch_exceptions=False)
    assert caught.value.exit_code == 2
    return str(caught.value)


def made(name: str = "", *wrote: events.Event) -> rundir.RunDir:
    """A run of digits with these events; one without a last one is alive for a minute after its making."""
    run = rundir.create(presets.get("digits").model_copy(update={"name": name}))
    if wrote:
        writer = events.Writer(run.events_file)
        for event in wrote:
            writer.write(event)
        writer.close()
    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments with which the dashboard would have been opened."""
    seen: list[dict[str, Any]] = []

    def show(_screen: str, **arguments: Any) -> NoReturn:
        seen.append(arguments)
        raise typer.Exit

    monkeypatch.setattr(opening, "show", show)
    return seen


@pytest.mark.parametrize(("words", "passed"), OF_THE_DASHBOARD)
def test_an_option_of_the_dashboard_may_stand_before_or_after_what_opens_it(
    opened: list[dict[str, Any]], words: list[str], passed: dict[str, Any]
) -> None:
    run = made()
    for line in (["attach", run.id], ["new"]):
        invoke(*words, *line)
        invoke(*line, *words)
        invoke(*line)
    with_it, without = opened[:2] + opened[3:5], [opened[2], opened[5]]
    assert all(one[name] == value for one in with_it for name, value in passed.items())
    assert not any(one[name] for one in without for name in passed)


@pytest.mark.parametrize(("words", "_passed"), OF_THE_DASHBOARD)
@pytest.mark.parametrize("line", [["delete", "RUN", "--yes"], ["runs"], ["config", "show"], ["queue"]])
def test_an_option_of_the_dashboard_before_another_command_is_refused(
    words: list[str], _passed: dict[str, Any], line: list[str]
) -> None:
    run = made("", events.End(status="finished"))
    told = refusal(*words, *(run.id if word == "RUN" else word for word in line))
    assert told.startswith(f"{words[0]} is an option of the dashboard, which `wmdd-tui {line[0]}` does not open")
    assert "wmdd-tui attach" in told
    assert run.path.exists()


def test_an_option_that_a_command_has_too_is_passed_on() -> None:
    run = made("", events.End(status="finished"))
    assert "--ascii" not in refusal("--ascii", "embed", run.id), "there are no features to draw"
    assert refusal("--readonly", "embed", run.id).startswith("--readonly")


def test_attach_takes_the_newest_that_is_alive(opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter(f"2026010{day}-000000-0000" for day in range(1, 5))
    monkeypatch.setattr("engine.rundir.paths.new_id", lambda _name: next(stamps))
    alive = [made("", events.Hello(stages=["train"])) for _ in range(2)]
    failed = made("", events.Hello(stages=["train"]), events.End(status="failed"))
    with rundir.hold_lock(alive[0]), rundir.hold_lock(alive[1]):
        invoke("attach")
        invoke("attach", failed.id)
    for run in alive:
        run.events_file.write_bytes(failed.events_file.read_bytes())
    invoke("attach")
    assert [Path(one["run"]) for one in opened] == [alive[1].path, failed.path, failed.path]


def test_a_run_is_found_by_the_name_it_is_shown_under() -> None:
    run, spaced = made(), made("two words")
    (shown,) = (row["name"] for row in json.loads(invoke("runs", "--json")) if row["id"] == run.id)
    assert json.loads(invoke("show", shown, "--json"))["id"] == run.id
    assert rundir.find("two words") == spaced
    run.config_file.write_text("nonsense = [")
    assert refusal("show", shown).startswith("no run 'digits'")


def test_a_shown_name_of_several_runs_tells_the_newest() -> None:
    ids = sorted((made().id for _ in range(7)), reverse=True)
    told = refusal("show", "digits")
    assert told.startswith(f"'digits' names 7 runs: {', '.join(ids[:5])}\n")
    named = made("digits")
    assert rundir.find("digits") == named, "a name that was given comes first"
    assert rundir.find(ids[3]).id == ids[3]


def test_a_teacher_named_as_its_run_is_shown_is_told_from_the_new_run() -> None:
    run, named = made(), made("kept")
    for reference, written in (("digits", run.id), ("kept", "kept"), (run.id[:20], run.id[:20]), ("none", "none")):
        line = ["--set", 'teacher.source="run"', "--set", f"teacher.path={reference}"]
        shown = config.from_toml(invoke("config", "show", *line))
        assert shown.teacher.path == written
    assert rundir.find("kept") == named
    rundir.create(shown)
    assert refusal("show", "digits").startswith("'digits' names 2 runs")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ipc", "-1"], "--ipc:\n  ipc = -1"),
        (["--seed", "-5"], "--seed:\n  seed = -5"),
        (["--device", "gpu"], "--device:\n  run.device = 'gpu'"),
        (["--devices", "nonsense"], "--devices:\n  run.devices"),
        (["--set", "ipc=-1"], "--set:\n  ipc = -1"),
        (["--set", "ipc=-1", "--seed", "3"], "--set:\n  ipc = -1"),
        (["--set", "seed=3", "--ipc", "-1"], "--ipc:\n  ipc = -1"),
    ],
)
def test_a_wrong_value_is_told_of_the_option_that_gave_it(words: list[str], told: str) -> None:
    assert refusal("run", *words).startswith(told)
    assert not rundir.list_runs()


def test_options_that_are_wrong_only_together_are_all_named() -> None:
    invoke("config", "show", "--set", "run.sync_bn=true")
    told = refusal("run", "--set", "run.sync_bn=true", "--devices", "cpu,cpu")
    assert told.startswith("--devices, --set:\n  run.sync_bn = true needs GPUs")


@pytest.mark.parametrize("command", ["check", "show"])
def test_configurations_take_the_options_of_run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[config.RunConfig] = []

    def check(settings: config.RunConfig) -> dict[str, Any]:
        asked.append(settings)
        return {"ok": False, "error": "", "remedy": ""}

    monkeypatch.setattr("wmdd_tui.store.launch.check", check)
    line = ["config", command, "--ipc", "3", "--seed", "4", "--device", "cpu", "--json"]
    result = runner.invoke(app, line, catch_exceptions=False)
    found = asked[0] if asked else config.from_dict(json.loads(result.stdout))
    assert (found.ipc, found.seed, found.run.device) == (3, 4, "cpu")


@pytest.mark.parametrize(
    ("state", "command", "told"),
    [
        ("running", "stop", "stops after this iteration; go on with `wmdd-tui resume ID`"),
        ("queued", "stop", "leaves the queue; go on with `wmdd-tui resume ID`"),
        ("paused", "stop", "stops where it is; go on with `wmdd-tui resume ID`"),
        ("running", "pause", "pauses after this iteration; go on with `wmdd-tui unpause ID`"),
        ("queued", "pause", "keeps its place while others go ahead; go on with `wmdd-tui unpause ID`"),
        ("paused", "unpause", "goes on"),
    ],
)
def test_a_request_says_what_comes_of_it_and_how_to_go_on(state: str, command: str, told: str) -> None:
    run = made("", events.Hello(stages=["train"]), events.Beat(paused=state == "paused", queued=state == "queued"))
    with rundir.hold_lock(run):
        assert rundir.state_of(run) == state
        assert invoke(command, run.id) == f"{run.id}: {told.replace('ID', run.id)}\n"
    assert (run.control / command).exists()


@pytest.mark.parametrize(("paused", "told"), [(True, "wmdd-tui unpause"), (False, "wmdd-tui watch")])
def test_a_run_that_is_alive_is_not_resumed(paused: bool, told: str) -> None:
    run = made("", events.Hello(stages=["train"]), events.Beat(paused=paused))
    with rundir.hold_lock(run):
        assert refusal("resume", run.id).endswith(f"{told} {run.id}")


@pytest.mark.parametrize(("name", "what"), [("nothing", "does not exist"), ("file", "is a file")])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / name)
    assert refusal("datasets", "--root", path).startswith(f"--root '{path}' {what}")


def test_labels_that_are_no_folder_are_told_of_their_option(tmp_path: Path) -> None:
    path = str(tmp_path / "nothing")
    assert refusal("evaluate", str(tmp_path), "--fkd", path).startswith(f"--fkd '{path}' is no folder")


def test_data_sets_are_found_with_and_without_a_split_and_as_the_root(tmp_path: Path) -> None:
    for name in ("split/train", "split/val", "flat"):
        for label in ("a", "b"):
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "0.png")
    (tmp_path / "others" / "documents").mkdir(parents=True)
    found = {root: names_under(tmp_path / root) for root in (".", "split", "flat", "others")}
    assert found == {".": ["flat", "split"], "split": ["split"], "flat": ["flat"], "others": []}


def names_under(root: Path) -> list[str]:
    rows = json.loads(invoke("datasets", "--root", str(root), "--json"))
    assert all((row["classes"], row["train_images"], row["problem"]) == (2, 2, "") for row in rows[1:])
    return [row["name"] for row in rows[1:]]


def test_logs_of_a_silent_engine_lead_to_what_it_did() -> None:
    run = made("", events.End(status="finished"))
    run.console_file.touch()
    result = runner.invoke(app, ["logs", run.id], catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"printed nothing; `wmdd-tui show {run.id}`" in result.stderr
    run.console_file.write_text("a warning\n")
    result = runner.invoke(app, ["logs", run.id], catch_exceptions=False)
    assert (result.stdout, result.stderr) == ("a warning\n", "")
