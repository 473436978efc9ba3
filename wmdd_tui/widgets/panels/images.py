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

    The live pictures stand over their class names. On a slow link a picture is sent when enter asks for it. The
    monitor's filter keeps the classes whose name contains a text.
    """

    EVERY = 10.0  # pictures are the largest part of what goes over the line

    def __init__(self, run: RunDir, settings: Settings, id: str, classes: str) -> None:
        super().__init__(run, settings, id, classes)
        self._finished: list[FinishedClass] = []
        self._class: int | None = None
        self._image: int | None = None
        self._filter = ""
        self._shown = ""
        self._asked = False
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Static("no image yet", id="caption", markup=False)
        yield Picture()

    def on_resize(self) -> None:
        """A picture given while the panel had no size is painted once it has one; more or fewer images have room."""
        self.call_after_refresh(self._resized)

    def _resized(self) -> None:
        self.query_one(Picture).refresh()
        if self._class is not None and self._image is None:
            self._show()

    def draw(self, view: RunView) -> None:
        self._view = view
        if self._class is None:
            self._live(view)

    # --- live ----------------------------------------------------------------------------------------------

    def _live(self, view: RunView) -> None:
        if view.image is None or view.end is not None:
            self._look()
            if view.end is not None and self._finished:
                self._ended()
                return
        if view.image is None:
            return
        names = [self._named(label) for label in view.image.classes]
        hello = view.hello
        chunks, total = (hello.chunks, hello.iterations) if hello else (0, 0)
        told = f"live: chunk {view.image.chunk + 1}/{chunks}, iteration {view.image.iteration}/{total}"
        told += " · enter: show it" if self.settings.slow_link else " · enter: finished classes"
        self._caption(f"{told} · {', '.join(dict.fromkeys(names))}")
        if self._asked or not self.settings.slow_link:
            self._asked = False
            self.query_one(Picture).show_row(self.run.path / view.image.path, names)

    def _ended(self) -> None:
        """Nothing is live any more: the first finished class, at once or when it is asked for."""
        if self.settings.slow_link:
            self._caption(f"{len(self._finished)} finished classes · enter: the first")
        else:
            self._class = 0
            self._show()

    def _named(self, label: int) -> str:
        names = self._view.hello.class_names if self._view and self._view.hello else []
        return names[label] if 0 <= label < len(names) else str(label)

    # --- finished classes ----------------------------------------------------------------------------------

    def _title(self, one: FinishedClass) -> str:
        return self._named(one.label) if one.label >= 0 else one.id

    def _look(self) -> None:
        """Which classes are finished by now, of those that pass the filter."""
        found = finished_classes(self.run.images)
        self._finished = [one for one in found if self._filter in f"{self._title(one)} {one.id}".lower()]

    def filter(self, text: str) -> None:
        """Go to the first class whose name contains the text; without a text stay at the class."""
        before = self._finished[self._class].id if self._class is not None and self._finished else ""
        self._filter = text.lower()
        if self._class is None and not (text and self.has_class("-current")):
            return
        self._look()
        ids = [one.id for one in self._finished]
        self._class, self._image = ids.index(before) if before in ids else 0, None
        self._show()

    def step(self, by: int) -> bool:
        """The class or image beside; before the first class comes the live picture."""
        if self._class is None:
            self._look()
            if not self._finished:
                self._caption("no finished images yet: a class is written when its chunk is done")
                return True
            self._class = 0 if by > 0 else None
        elif self._image is None:
            moved = self._class + by
            live = moved < 0 and self._view is not None and self._view.image is not None and self._view.end is None
            self._class = None if live else max(0, min(moved, len(self._finished) - 1))
        elif self._finished:
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
        elif self._image is None and self._finished and self._finished[self._class].files():
            self._image = 0
            self._show()

    def leave(self) -> bool:
        if self._image is not None:
            self._image = None
        elif self._class is not None and self._view is not None and self._view.image and self._view.end is None:
            self._class = None
        else:
            return False
        self._show()
        return True

    def _show(self) -> None:
        if self._class is None:
            if self.settings.slow_link:
                self.query_one(Picture).show_tiles([])
            if self._view is not None:
                self._live(self._view)
            return
        picture = self.query_one(Picture)
        if not self._finished:
            self._caption(f"no finished class holds “{self._filter}”" if self._filter else "no finished images")
            picture.show_tiles([])
            return
        one = self._finished[self._class]
        files = one.files()
        kept = " that match" if self._filter else ""
        head = f"class {self._class + 1}/{len(self._finished)}{kept}: {self._title(one)}"
        if self._image is None:
            picture.show_files(files)
            count = f"{len(files)} images" if picture.shown >= len(files) else f"{picture.shown} of {len(files)} images"
            self._caption(f"{head} · {count} · enter: one alone")
        else:
            file = files[min(self._image, len(files) - 1)] if files else one.folder
            self._caption(f"{head} · image {self._image + 1}/{len(files)} · {file.relative_to(self.run.images)}")
            picture.show(file)

    def _caption(self, text: str) -> None:
        text = " ".join(text.split())
        if text != self._shown:
            self._shown = text
            self.query_one("#caption", Static).update(text)

    def as_text(self) -> str:
        return self._shown
