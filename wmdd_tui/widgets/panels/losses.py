"""Losses over the iterations of all chunks."""

from __future__ import annotations

from dataclasses import replace

from textual.app import ComposeResult

from wmdd_tui.store.view import RunView
from wmdd_tui.widgets.chart import LossChart
from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.views import TERM_NAMES, loss_curves

#: Said of random real photographs and of a given set.
NOTHING_OPTIMISED = "no losses: the images of this run were taken as they are"
CHOICES = ("all", *TERM_NAMES)


class LossPanel(Panel):
    """Total, cross-entropy, feature and BN loss, together or one by one; chunks begin at the dotted lines."""

    EVERY = 0.5
    _term = 0
    _text = ""

    def compose(self) -> ComposeResult:
        yield LossChart(ascii=self.settings.ascii)

    def draw(self, view: RunView) -> None:
        term = CHOICES[self._term]
        curves = loss_curves(view, "" if term == "all" else term)
        recovered = view.stages.get("recover")
        if recovered is not None and recovered.seconds is not None:
            curves = replace(curves, empty=NOTHING_OPTIMISED)
        self.query_one(LossChart).show(curves)
        lasts = {name: series.last for name, series in view.losses.items()}
        self._text = "\n".join(f"{name}\t{value}" for name, value in lasts.items())

    def cycle_term(self) -> str:
        self._term = (self._term + 1) % len(CHOICES)
        return TERM_NAMES.get(CHOICES[self._term], "all terms")

    def as_text(self) -> str:
        return self._text
