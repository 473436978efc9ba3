"""The panel of the distribution: asked of a process, kept, said in words where it cannot be; classes chosen by key."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from piloted import record, until
from staged_runs import add_distribution
from test_embed import run  # noqa: F401  (a fixture: a run with features)
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, SelectionList

from engine import rundir
from engine.errors import RunFailure
from engine.rundir import RunDir
from wmdd_tui.app import WmddApp
from wmdd_tui.screens.choose_classes import ChooseClasses
from wmdd_tui.screens.monitor import MonitorScreen
from wmdd_tui.store import deleting, embedded
from wmdd_tui.store.embedded import Embedding, Wanted
from wmdd_tui.widgets.panels import DistributionPanel
from wmdd_tui.widgets.scatter import Scatter

SIZE = (80, 24)


def drawn(app: WmddApp) -> str:
    """The text of the scatter."""
    scatter = app.screen.query_one(Scatter)
    return "\n".join(scatter.render_line(y).text for y in range(scatter.size.height))


async def opened(pilot: Pilot[int]) -> DistributionPanel:
    """The panel, once the monitor has read its run and key 7 has brought it up."""
    screen = pilot.app.screen
    assert isinstance(screen, MonitorScreen)
    await until(pilot, lambda: screen.state != "starting" and screen.view.hello is not None)
    await pilot.press("7")
    return screen.query_one(DistributionPanel)


def no_process(*_: object) -> None:
    pytest.fail("what was kept is measured again")


# --- in the dashboard ----------------------------------------------------------------------------------------


async def test_it_is_measured_once_and_opens_at_once_the_next_time(
    run: RunDir,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = WmddApp("monitor", run)
    async with app.run_test(size=SIZE) as pilot:
        panel = await opened(pilot)
        await until(pilot, lambda: "measuring classes and projecting them by PCA" in panel.as_text())
        await until(pilot, lambda: "PCA of 3 classes" in panel.as_text())
        table = panel.query_one(DataTable)
        assert [str(table.get_row_at(row)[0]) for row in range(4)] == ["all: mean", "a zero", "b [one]", "c two$"]
        await until(pilot, lambda: all(letter in drawn(app) for letter in "abc"))
        measured = panel.as_text()
        assert "W2² of random real" in measured
    monkeypatch.setattr(embedded, "measure", no_process)
    again = WmddApp("monitor", run)
    async with again.run_test(size=SIZE) as pilot:
        panel = await opened(pilot)
        await until(pilot, lambda: panel.as_text() == measured)


async def test_without_features_it_says_which_stage_writes_them() -> None:
    app = WmddApp("monitor", record())
    async with app.run_test(size=SIZE) as pilot:
        panel = await opened(pilot)
        await until(pilot, lambda: "missing" in panel.as_text())
        lines = [line.split() for line in panel.as_text().splitlines()]
        assert [line[0] for line in lines if line[-1:] == ["missing"]] == ["statistics", "barycenter", "recover"]
        assert "wmdd-tui resume" in panel.as_text()
        assert not panel.query_one("#picture").display


async def test_one_class_comes_to_the_front_and_goes_back() -> None:
    found = record()
    add_distribution(found, classes=2)
    app = WmddApp("monitor", found)
    async with app.run_test(size=SIZE) as pilot:
        panel = await opened(pilot)
        await until(pilot, lambda: "a" in drawn(app) and "b" in drawn(app))
        await pilot.press("right", "down")
        await until(pilot, lambda: "b" in drawn(app) and "a" not in drawn(app))
        await pilot.press("escape")
        await until(pilot, lambda: "a" in drawn(app))
        assert app.screen.query_one(DistributionPanel) is panel, "escape went back to all classes, not out"


async def test_classes_and_projection_are_chosen_by_key(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record()
    add_distribution(found, classes=2)
    asked: list[Wanted] = []

    def measure(wanted: Wanted, say: Callable[[str], None], _cancelled: Callable[[], bool]) -> Embedding:
        asked.append(wanted)
        say("measuring classes: 50 %")
        kept = embedded.kept(Wanted(found))
        assert kept is not None
        return Embedding(wanted.method, kept.classes[-1:])

    monkeypatch.setattr(embedded, "measure", measure)
    app = WmddApp("monitor", found)
    async with app.run_test(size=SIZE) as pilot:
        panel = await opened(pilot)
        await until(pilot, lambda: "PCA of 2 classes" in panel.as_text())
        await pilot.press("C")
        await until(pilot, lambda: isinstance(app.screen, ChooseClasses))
        await pilot.press("space", "enter")
        await until(pilot, lambda: "PCA of 1 of 2 classes" in panel.as_text())
        await pilot.press("t")
        await until(pilot, lambda: "t-SNE of 1 of 2 classes" in panel.as_text())
    assert [(one.classes, one.method) for one in asked] == [(("1",), "pca"), (("1",), "t-sne")]


async def test_a_failed_measurement_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = record()
    add_distribution(found)
    (found.report / "image_features.npy").write_bytes(b"others, of which nothing is kept")

    def measure(*_: object) -> None:
        raise RunFailure("no distribution: the file is damaged")

    monkeypatch.setattr(embedded, "measure", measure)
    app = WmddApp("monitor", found)
    async with app.run_test(size=SIZE) as pilot:
        panel = await opened(pilot)
        await until(pilot, lambda: panel.as_text() == "no distribution: the file is damaged")


async def test_few_of_many_classes_are_found_by_filter() -> None:
    app = WmddApp()
    async with app.run_test(size=SIZE) as pilot:
        screen = ChooseClasses([f"class {label}" for label in range(21_000)], [0], 2)
        answers: list[tuple[int, ...] | None] = []
        app.push_screen(screen, answers.append)
        await until(pilot, lambda: app.screen is screen and bool(screen.query(SelectionList)))
        listed = screen.query_one(SelectionList)
        screen.query_one(Input).value = "20999"
        await until(pilot, lambda: listed.option_count == 1)
        await pilot.press("space")
        screen.query_one(Input).value = "17 class"
        await until(pilot, lambda: listed.option_count > 1)
        await pilot.press("space", "enter")
        await pilot.pause()
        assert app.screen is screen, "three classes are one too many"
        await pilot.press("space", "enter")
        await until(pilot, lambda: answers == [(0, 20_999)])


# --- asking and keeping --------------------------------------------------------------------------------------


def test_classes_are_named_so_that_numbers_mean_what_they_say() -> None:
    assert embedded.words_of([0, 2], ["cat", "dog", "cow"]) == ("0", "2")
    # Folders in the order of their names: the third class is called 10, and another one is called 2.
    assert embedded.words_of([1, 2], ["0", "1", "10", "2"]) == ("1", "10")


def test_what_is_kept_holds_for_the_same_features_alone(run: RunDir) -> None:  # noqa: F811
    add_distribution(run)
    assert embedded.kept(Wanted(run)) is not None
    assert embedded.kept(Wanted(run, ("1",))) is None
    np.save(run.report / "image_features.npy", np.zeros((2, 2)))
    assert embedded.kept(Wanted(run)) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[" * 100_000, b'{"method":"pca","classes":[]}', b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)
def test_rubbish_in_place_of_an_answer_is_none(content: bytes) -> None:
    found = record()
    embedded.keep(Wanted(found), content)
    assert embedded.kept(Wanted(found)) is None


def test_places_beyond_what_can_be_drawn_are_none() -> None:
    found = record()
    add_distribution(found, classes=1)
    kept = embedded.kept(Wanted(found))
    assert kept is not None
    far = msgspec.structs.replace(kept.classes[0], images=[(1e300, 0.0)])
    embedded.keep(Wanted(found), msgspec.json.encode(Embedding("pca", [far])))
    assert embedded.kept(Wanted(found)) is None


def test_what_is_kept_stays_bounded_and_goes_with_the_run() -> None:
    found = record()
    for number in range(embedded.MOST_KEPT + 5):
        embedded.keep(Wanted(found, (str(number),)), b"anything")
    folder = rundir.home() / "embeddings" / found.id
    assert len(list(folder.iterdir())) == embedded.MOST_KEPT
    assert embedded.kept(Wanted(found, (str(number),))) is None, "it is no answer"
    deleting.delete(found)
    assert not folder.exists()
    assert not found.path.exists()


def test_what_the_command_says_is_said_and_leaving_ends_it(run: RunDir) -> None:  # noqa: F811
    with pytest.raises(RunFailure, match="class 'nine' is none of the run's 3"):
        embedded.measure(Wanted(run, ("nine",)), lambda _: None, lambda: False)
    assert embedded.measure(Wanted(run), lambda _: None, lambda: True) is None


def test_a_run_without_distillation_has_none() -> None:
    found = record()
    text = found.config_file.read_text().replace('images = "synthetic"', 'images = "real"')
    found.config_file.write_text(text.replace('labels = "soft"', 'labels = "hard"'))
    assert "no part of this run" in embedded.lacking(found)
    assert "so there is no distribution to show" in embedded.lacking(found)
