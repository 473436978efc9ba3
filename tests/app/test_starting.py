"""How the dashboard comes up."""

from __future__ import annotations

from typing import Any

import pytest

from wmdd_tui.app import WmddApp
from wmdd_tui.screens.runs import RunsScreen


async def test_the_first_screen_is_on_the_stack_before_its_widgets_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on Textual's tasks begin at once, and widgets ask for the screen as soon as they are made."""
    stacked: list[bool] = []
    register = WmddApp._register

    def noting(app: WmddApp, parent: Any, *widgets: Any, **more: Any) -> Any:
        stacked.extend(one in app._screen_stacks[app.current_mode] for one in widgets if isinstance(one, RunsScreen))
        return register(app, parent, *widgets, **more)

    monkeypatch.setattr(WmddApp, "_register", noting)
    app = WmddApp()
    async with app.run_test(size=(80, 24)):
        assert app.screen_stack == [app.screen]
    assert stacked == [True]
