"""The form of a new run: pickers, mistakes, what is pasted into it, what is copied out of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image
from piloted import HOSTILE, record, text_of, until
from screen_text import shot_of
from textual.pilot import Pilot
from textual.widgets import Collapsible, Input, Select, TextArea
from typer.testing import CliRunner

from engine import presets, rundir
from engine.catalog import DatasetFacts
from engine.config import from_toml, override
from engine.errors import ConfigError
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp, run_app
from wmdd_tui.cli.commands import app as commands
from wmdd_tui.cli.pasted import read_pasted
from wmdd_tui.farewell import farewell
from wmdd_tui.screens.confirm import Confirm
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.screens.new_run import NewRunScreen
from wmdd_tui.screens.paste import Paste
from wmdd_tui.store.command_line import command_for
from wmdd_tui.store.devices import Device
from wmdd_tui.store.space import Room
from wmdd_tui.store.teachers import earlier_teachers
from wmdd_tui.widgets.form_texts import dataset_text, problem_text

# --- what is pasted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "changes", "queue"),
    [
        ("wmdd-tui run --preset digits --ipc 3", ["ipc=3"], False),
        ("$ wmdd-tui run --preset=digits --seed=4 --queue", ["seed=4"], True),
        ("WMDD_DATA=/data /opt/bin/wmdd-tui run \\\n  --set ipc=2 \\\n  --name 'a b'", ["ipc=2", 'name="a b"'], False),
        ("python3 -m wmdd_tui recover --set recover.r_bn=3.5", ["recover.r_bn=3.5", "run.until=recover"], False),
        ("wmdd-tui run", [], False),
    ],
)
def test_a_pasted_command_is_read_as_the_shell_would(text: str, changes: list[str], queue: bool) -> None:
    found = read_pasted(text)
    assert found.config == override(presets.get("digits"), changes)
    assert found.queue is queue


def test_pasted_toml_and_a_command_that_names_a_file(tmp_path: Path) -> None:
    assert read_pasted("# made by wmdd-tui\nipc = 4").config.ipc == 4
    file = tmp_path / "my run.toml"
    file.write_text("seed = 9")
    assert read_pasted(shlex.join(["wmdd-tui", "run", str(file), "--ipc", "2"])).config.seed == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing was pasted"),
        ("wmdd-tui stop it", "`wmdd-tui stop` starts no run"),
        ("wmdd-tui run --iterations 4", "--iterations"),
        ("wmdd-tui run --ipc many", "--ipc"),
        ("wmdd-tui run --set ipc=0", "ipc = 0"),
        ("wmdd-tui run nowhere.toml", "nowhere.toml"),
        ("wmdd-tui run --name 'open", "quotation"),
        ("wmdd-tui run --help", "starts no run"),
        ("hello", "not valid TOML"),
        ("ipcc = 3", "ipcc"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as caught:
        read_pasted(text)
    assert said in str(caught.value)


async def test_a_paste_that_cannot_be_read_stays_with_the_reason() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f4")
        await pilot.pause()
        assert isinstance(app.screen, Paste)
        app.screen.query_one(TextArea).text = "wmdd-tui run --nonsense 3"
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert isinstance(app.screen, Paste)
        assert "--nonsense" in text_of(app, "#wrong")
        app.screen.query_one(TextArea).text = "wmdd-tui run --ipc 3 --queue"
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert isinstance(app.screen, NewRunScreen)
        assert app.screen.query_one("#field-ipc", Input).value == "3"
        assert app.screen.query_one("#pick-start", Select).value == "queue"
        assert text_of(app, "#command").endswith("--queue")


# --- pickers ---------------------------------------------------------------------------------------------------


def with_teacher(run: RunDir) -> RunDir:
    (run.checkpoints / "teacher.safetensors").write_bytes(b"")
    return run


def dataset(root: Path, empty: bool = False) -> Path:
    for label in ("cat", "dog"):
        folder = root / "train" / label
        folder.mkdir(parents=True)
        for number in range(0 if empty and label == "dog" else 4):
            Image.new("RGB", (20, 10)).save(folder / f"{number}.png")
    return root


async def offered(pilot: Pilot[int], name: str, count: int) -> list[str]:
    """The texts of a picker once the machine has been searched."""
    select = pilot.app.screen.query_one(f"#pick-{name}", Select)
    await until(pilot, lambda: len(select._options) >= count)
    return [str(text) for text, _ in select._options]


def picked(app: WmddApp, name: str) -> object:
    return app.screen.query_one(f"#pick-{name}", Select).value


async def test_data_sets_are_offered_with_facts_and_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_DATA", str(tmp_path / "data"))
    dataset(tmp_path / "data" / "pets")
    dataset(tmp_path / "data" / "torn", empty=True)
    (tmp_path / "data" / "cifar10").mkdir()
    elsewhere = dataset(tmp_path / "elsewhere")
    config = override(presets.get("digits"), ["data.dataset=imagefolder", f'data.path="{elsewhere}"'])
    with_teacher(rundir.create(config))
    app = WmddApp("new")
    async with app.run_test(size=(120, 40)) as pilot:
        texts = await offered(pilot, "dataset", 6)
        assert any("pets (imagefolder): 2 classes, 8 images, 20×10 px" in text for text in texts)
        assert any("torn (imagefolder): UNUSABLE: class folder 'dog' is empty" in text for text in texts)
        assert any(text.startswith("cifar10 (cifar10): 10 classes") for text in texts)
        assert any(text.startswith("elsewhere (imagefolder)") for text in texts), "the set of an earlier run"
        app.screen.query_one("#pick-dataset", Select).value = str(tmp_path / "data" / "pets")
        await until(pilot, lambda: app.screen.query_one("#field-data-dataset", Select).value == "imagefolder")
        assert app.screen.query_one("#field-data-path", Input).value == str(tmp_path / "data" / "pets")


async def test_the_teacher_of_an_earlier_run_comes_with_its_build() -> None:
    config = override(presets.get("digits"), ["teacher.width=16", "name=older"])
    run = with_teacher(rundir.create(config))
    record()  # has left no teacher
    assert [one.path for one in earlier_teachers()] == [str(run.path)]
    app = WmddApp("new")
    async with app.run_test(size=(120, 40)) as pilot:
        texts = await offered(pilot, "teacher", 5)
        assert texts[1:4] == ["train it here", "torchvision weights", "a checkpoint file: name it in teacher.path"]
        assert "run older" in texts[4]
        app.screen.query_one("#pick-teacher", Select).value = str(run.path)
        await pilot.pause()
        await until(pilot, lambda: "teacher.width=16" in text_of(app, "#command"))
        assert "teacher.source=" in text_of(app, "#command")


def test_a_teacher_that_runs_share_is_offered_once_and_with_its_accuracy() -> None:
    """By its hash, or, where a run has no report, by the file that the cache gave to both."""
    judged, again, broken_off, other = (
        rundir.create(override(presets.get("digits"), [f"name={name}"])) for name in ("judged", "again", "off", "other")
    )
    for run, text in ((judged, b"one"), (again, b"one"), (other, b"two")):
        (run.checkpoints / "teacher.safetensors").write_bytes(text)
    (broken_off.checkpoints / "teacher.safetensors").hardlink_to(judged.checkpoints / "teacher.safetensors")
    for run in (judged, again):
        run.report_file.write_text('{"teacher_sha256": "1", "teacher_top1": 91.5}')
    found = {one.run: one.top1 for one in earlier_teachers()}
    assert len(found) == 2
    assert found.pop(other.id) is None
    assert list(found.values()) == [91.5]
    assert broken_off.id not in found


async def test_pickers_say_what_the_fields_say() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(120, 40)) as pilot:
        await offered(pilot, "device", 3)
        assert (picked(app, "dataset"), picked(app, "teacher"), picked(app, "device")) == ("digits", "train", "auto")
        app.screen.query_one("#field-teacher-source", Select).value = "checkpoint"
        app.screen.query_one("#field-run-device", Input).value = "cuda:63"
        await until(pilot, lambda: picked(app, "teacher") == "checkpoint")
        assert picked(app, "device") == "", "not a device that was found"
        app.screen.query_one("#pick-teacher", Select).focus()
        await pilot.pause()
        assert "earlier run" in text_of(app, "#hint")


def test_texts_of_pickers() -> None:
    facts = DatasetFacts("imagefolder", "/x", HOSTILE, 3, 40, 5, (64, 48), 2048)
    assert dataset_text(facts) == f"{HOSTILE} (imagefolder): 3 classes, 40 + 5 images, 64×48 px, 2.0 KiB"


# --- mistakes --------------------------------------------------------------------------------------------------


async def test_launching_with_a_mistake_leads_to_its_field() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        section = app.screen.query_one("#section-relabel", Collapsible)
        section.collapsed = False
        await until(pilot, lambda: bool(app.screen.query("#field-relabel-alpha")))
        app.screen.query_one("#field-relabel-alpha", Input).value = "-1"
        app.screen.query_one("#field-ipc", Input).value = "none"
        await pilot.pause()
        assert "2 fields are wrong (ipc, relabel.alpha)" in text_of(app, "#problem")
        assert text_of(app, "#command") == "no command while a field is wrong"
        await pilot.press("ctrl+r")
        await pilot.pause()
        assert app.focused is app.screen.query_one("#field-ipc")
        app.screen.query_one("#field-ipc", Input).value = "1"
        section.collapsed = True
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.focused is app.screen.query_one("#field-relabel-alpha"))
        assert not section.collapsed


def test_one_mistake_is_told_and_many_are_counted() -> None:
    assert problem_text({}) == ""
    assert problem_text({"": "two options contradict"}) == "two options contradict"
    assert problem_text({"ipc": "ipc = 0", "seed": "seed = -1"}).startswith("2 fields are wrong (ipc, seed)")


async def test_a_mistake_in_a_fold_never_opened_is_led_to() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.screen.query_one("#form").put({"squeeze.momentum": 2.0})  # type: ignore[attr-defined]
        await pilot.press("ctrl+r")
        await until(pilot, lambda: bool(app.screen.query("#field-squeeze-momentum")))
        await until(pilot, lambda: app.focused is app.screen.query_one("#field-squeeze-momentum"))
        assert app.screen.query_one("#row-squeeze-momentum").has_class("-wrong")


async def test_the_field_typed_in_and_its_mistake_stay_in_view_while_the_form_shrinks() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        form, field = app.screen.query_one("#form"), app.screen.query_one("#field-squeeze-epochs", Input)
        field.focus()
        await pilot.pause()
        before = form.size.height
        await pilot.press("x")
        await until(pilot, lambda: form.size.height < before)
        row = app.screen.query_one("#row-squeeze-epochs")
        await until(pilot, lambda: row.has_class("-wrong") and row.size.height > 1)
        await until(pilot, lambda: form.content_region.contains_region(row.region))


# --- warnings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "launched"), [("n", False), ("y", True)])
async def test_a_run_that_would_not_fit_is_launched_after_a_question(
    key: str, launched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[RunDir] = []
    monkeypatch.setattr("wmdd_tui.app.launch", started.append)
    monkeypatch.setattr("wmdd_tui.store.estimate.room_at", lambda folder: Room(folder, 1 << 20))
    monkeypatch.setattr("wmdd_tui.screens.new_run.list_devices", lambda: [Device("cpu", "cpu", "", 8 << 30, 16 << 30)])
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        app.screen.query_one("#field-ipc", Input).value = "1000000"
        await until(pilot, lambda: "ipc=1000000" in text_of(app, "#command"))
        await pilot.press("ctrl+r")  # before the estimate of what was typed is shown
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        asked = "\n".join(shot_of(app).rows)
        assert "NOT ENOUGH DISK" in asked
        assert "NOT ENOUGH MEMORY" in asked
        assert not started
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen if launched else NewRunScreen))
        assert len(started) == launched
        if not launched:
            plan = app.screen.query_one("#plan")
            await until(pilot, lambda: "NOT ENOUGH DISK" in text_of(app, "#plan"))
            shown = shot_of(app).rows[plan.region.y : plan.region.bottom]
            assert "NOT ENOUGH DISK" in shown[0]
            assert "NOT ENOUGH MEMORY" in shown[1]
            await until(pilot, lambda: text_of(app, "#stages").startswith("! NOT ENOUGH DISK"))


# --- the preview -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(120, 40), (200, 60)])
async def test_the_preview_stands_beside_the_form_where_there_is_room(size: tuple[int, int]) -> None:
    app = WmddApp("new")
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        form, preview = app.screen.query_one("#form"), app.screen.query_one("#preview")
        assert (form.display, preview.display) == (True, True)
        await pilot.press("f2")
        assert (form.display, preview.display) == (True, False)
        await pilot.press("f2")
        assert preview.display


async def test_the_preview_takes_the_place_and_the_keys_of_the_form_where_there_is_none() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f2")
        await pilot.pause()
        preview = app.screen.query_one("#preview")
        assert not app.screen.query_one("#form").display
        assert app.focused is preview
        await pilot.press("end")
        await until(pilot, lambda: preview.scroll_y > 0)
        await pilot.press("f2", *"mine")
        await pilot.pause()
        assert app.screen.query_one("#field-name", Input).value == "mine"


# --- leaving the form ------------------------------------------------------------------------------------------


async def test_what_was_typed_waits_for_the_next_time() -> None:
    app = WmddApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.has_class("-empty"))
        await pilot.press("n")
        await until(pilot, lambda: bool(app.screen.query("#field-name")))
        app.screen.query_one("#pick-preset", Select).value = "digits-sre2l"
        await until(pilot, lambda: "sre2l" in text_of(app, "#command"))
        app.screen.query_one("#field-name", Input).value = "kept"
        app.screen.query_one("#field-ipc", Input).value = "not yet"
        await pilot.pause()
        await pilot.press("escape", "n")
        await until(pilot, lambda: bool(app.screen.query("#field-name")))
        await until(pilot, lambda: app.screen.query_one("#field-ipc", Input).value == "not yet")
        assert app.screen.query_one("#field-name", Input).value == "kept"
        assert picked(app, "preset") == "digits-sre2l"
        assert app.screen.query_one("#row-ipc").has_class("-wrong")
        app.screen.query_one("#pick-preset", Select).value = "digits"
        await until(pilot, lambda: app.screen.query_one("#field-ipc", Input).value == "10")
        await pilot.pause()
        await pilot.press("escape", "n")
        await until(pilot, lambda: bool(app.screen.query("#field-name")))
        await pilot.pause()
        assert app.screen.query_one("#field-name", Input).value == "", "a form that was started over leaves nothing"


# --- what goes out ---------------------------------------------------------------------------------------------


async def test_copying_gives_command_and_toml_as_files_too() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"mine", "f7")
        await pilot.pause()
        folder = rundir.home() / "exports"
        await until(pilot, lambda: (folder / "config.toml").is_file())
        wanted = override(presets.get("digits"), ["name=mine"])
        assert app.clipboard == command_for(wanted, "digits")
        assert read_pasted((folder / "command.txt").read_text()).config == wanted
        assert from_toml((folder / "config.toml").read_text()) == wanted


async def test_help_opens_while_one_types() -> None:
    app = WmddApp("new")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await pilot.press("question_mark", "f1")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        await pilot.press("escape")
        await pilot.pause()
        assert app.screen.query_one("#field-name", Input).value == "?"


# --- leaving and starting --------------------------------------------------------------------------------------


def test_leaving_says_which_runs_go_on_and_how_to_come_back() -> None:
    ended, first, second = record("ended"), record("first"), record("second")
    assert farewell(ended) == ""
    with rundir.hold_lock(first):
        assert (
            farewell(ended) == f"1 run goes on without the dashboard. Come back with:\n  wmdd-tui attach {first.id}\n"
        )
        with rundir.hold_lock(second):
            assert farewell(second).startswith("2 runs go on")
            assert farewell(second).endswith(f"attach {second.id}\n")


def test_a_run_that_was_just_launched_goes_on() -> None:
    run = rundir.create(presets.get("digits"))
    assert run.id in farewell(run)


def test_an_unknown_theme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    with pytest.raises(ConfigError, match="there is no theme 'neon'"):
        run_app(theme="neon")


def test_an_unknown_preset_is_refused_before_the_form_opens() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        CliRunner().invoke(commands, ["new", "--preset", "digit"], catch_exceptions=False)
