"""Keys of one's own: what is accepted, what is refused, and that the app obeys."""

from __future__ import annotations

from pathlib import Path

import pytest
from piloted import record, until
from textual.widgets import DataTable

from engine.errors import ConfigError
from wmdd_tui.app import WmddApp
from wmdd_tui.ascii_filter import to_ascii
from wmdd_tui.keymap import keymap_file, load_keymap
from wmdd_tui.screens.help import Help
from wmdd_tui.screens.monitor import MonitorScreen


def written(folder: Path, text: str) -> Path:
    file = folder / "keys.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_a_file_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert keymap_file() == tmp_path / "wmdd-tui" / "keys.toml"
    assert load_keymap(keymap_file()) == {}


def test_flat_and_nested_names_say_the_same(tmp_path: Path) -> None:
    flat = load_keymap(written(tmp_path, '"runs.open" = "O"\n"monitor.zoom_in" = "plus, z"'))
    nested = load_keymap(written(tmp_path, '[runs]\nopen = "O"\n[monitor]\nzoom_in = "plus,z"'))
    assert flat == nested == {"runs.open": "O", "monitor.zoom_in": "plus,z"}


def test_two_actions_may_change_places(tmp_path: Path) -> None:
    found = load_keymap(written(tmp_path, '"monitor.smooth" = "y"\n"monitor.scale" = "s"'))
    assert found == {"monitor.smooth": "y", "monitor.scale": "s"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runs.open = [", "not valid TOML"),
        ('"runs.opne" = "O"', "did you mean 'runs.open'"),
        ('"runs.open" = 3', "is no key"),
        ('"runs.open" = ""', "is no key"),
        ('"runs.open" = "ctrl++"', "is no key"),
        ('"runs.open" = "q"', "'q' would mean both app.leave and runs.open"),
        ('"runs.open" = "n"', "would mean both"),
        ('"app.help" = "m"', "monitor.maximise"),
    ],
)
def test_faults_end_in_one_message(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_keymap(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 2


async def test_the_app_and_its_help_use_the_keys() -> None:
    app = WmddApp(run=record(), keymap={"runs.sort": "N", "app.help": "f1", "runs.mark": "o"})
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.screen.query_one("#table", DataTable)
        await until(pilot, lambda: table.row_count == 1)
        await pilot.press("o")
        await pilot.pause()
        assert str(table.get_row_at(0)[0]).strip(), "o marks now, and sorts no more"
        await pilot.press("f1")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        await pilot.press("escape")
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, MonitorScreen)


async def test_keys_that_change_places_do_so() -> None:
    app = WmddApp("monitor", record(), keymap={"monitor.smooth": "y", "monitor.scale": "s"})
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        bound = {key: binding.action for key, (_, binding, *_) in app.screen.active_bindings.items()}
        assert (bound["y"], bound["s"]) == ("smooth", "scale")


def test_ascii_keeps_the_width() -> None:
    assert to_ascii("wmdd-tui · ✓ W2² über 漢x") == "wmdd-tui - + W22 uber ??x"
    assert to_ascii("┌─▀█▇") == "+-## "


async def test_ascii_reaches_the_terminal() -> None:
    from wmdd_tui.app import Settings

    app = WmddApp("monitor", record(), settings=Settings(ascii=True))
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        filters = app.get_line_filters()
        assert any(type(one).__name__ == "AsciiFilter" for one in filters)
