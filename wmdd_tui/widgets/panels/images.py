"""The images: the chunk being recovered as it forms, finished classes, one image alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.widgets import Static

from engine.rundir import RunDir
from wmdd_tui.store.pictures import FinishedClass, finished_classes
from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.picture import Picture

if TYPE_CHECKING:
    from wmdd_tui.app import Settings


class ImagePanel(Panel):
    """Three levels: live, a finished class, one of its images. The cursor keys walk, enter and esc change level.

    On a slow link the live picture is sent once, and again when enter asks for it.
    """

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(run, settings, id, classes)
        self._finished: list[FinishedClass] = []
        self._class: int | None = None
        self._image: int | None = None
        self._shown = ""
        self._asked = True
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Static("no image yet", id="caption", markup=False)
        yield Picture()

    def on_resize(self) -> None:
        """A picture given while the panel had no size is painted once it has one."""
        self.call_after_refresh(self.query_one(Picture).refresh)

    def draw(self, view: RunView) -> None:
        self._view = view
        if self._class is None:
            self._live(view)

    def _live(self, view: RunView) -> None:
        if view.image is None:
            if view.end is not None:
                self._look()
                if self._finished:
                    self._class = 0
                    self._show()
            return
        if self.settings.slow_link and not self._asked:
            return
        self._asked = False
        labels = dict.fromkeys(view.image.classes)
        classes = ", ".join(self._named(label) for label in labels)
        total = view.hello.iterations if view.hello else 0
        told = f"live: chunk {view.image.chunk + 1}, iteration {view.image.iteration}/{total} · {classes}"
        self._caption(told)
        self.query_one(Picture).show(self.run.path / view.image.path, "")

    def _named(self, label: int) -> str:
        names = self._view.hello.class_names if self._view and self._view.hello else []
        return names[label] if 0 <= label < len(names) else str(label)

    def _look(self) -> None:
        """Which classes are finished by now."""
        self._finished = finished_classes(self.run.images)

    def step(self, by: int) -> bool:
        """The class or image beside; before the first class comes the live picture."""
        if self._class is None:
            self._look()
            if not self._finished:
                self._caption("no finished images yet")
                return True
            if by > 0:
                self._class = 0
        elif self._image is None:
            moved = self._class + by
            self._class = None if moved < 0 else min(moved, len(self._finished) - 1)
        else:
            count = len(self._finished[self._class].files())
            self._image = max(0, min(self._image + by, count - 1))
        self._show()
        return True

    def enter(self) -> None:
        """From live to the classes, from a class to its first image; on a slow link, the newest live picture."""
        if self._class is None:
            if self.settings.slow_link and self._view is not None and self._view.end is None:
                self._asked = True
                self._live(self._view)
            else:
                self.step(1)
        elif self._image is None and self._finished[self._class].files():
            self._image = 0
            self._show()

    def leave(self) -> bool:
        if self._image is not None:
            self._image = None
        elif self._class is not None and self._view is not None and self._view.image is not None:
            self._class = None
        else:
            return False
        self._show()
        return True

    def _show(self) -> None:
        picture = self.query_one(Picture)
        if self._class is None:
            self._shown, self._asked = "", True
            if self._view is not None:
                self._live(self._view)
            return
        one = self._finished[self._class]
        files = one.files()
        head = f"class {self._class + 1}/{len(self._finished)}: {self._named(one.label) if one.label >= 0 else one.id}"
        if self._image is None:
            self._caption(f"{head} · {len(files)} images · enter: one alone")
            picture.show_grid(files)
        else:
            file = files[self._image]
            self._caption(f"{head} · image {self._image + 1}/{len(files)} · {file.relative_to(self.run.images)}")
            picture.show(file, "")

    def _caption(self, text: str) -> None:
        text = " ".join(text.split())
        if text != self._shown:
            self._shown = text
            self.query_one("#caption", Static).update(text)

    def as_text(self) -> str:
        return self._shown
