"""The panels of the monitor. Each draws from the view it is given; two look into files:
the image panel, by picture, and that of the distribution, away from the event loop."""

from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.panels.distribution import DistributionPanel
from wmdd_tui.widgets.panels.images import ImagePanel
from wmdd_tui.widgets.panels.layers import LayerPanel
from wmdd_tui.widgets.panels.log import LogPanel
from wmdd_tui.widgets.panels.losses import LossPanel
from wmdd_tui.widgets.panels.memory import MemoryPanel
from wmdd_tui.widgets.panels.metrics import MetricsPanel

#: In the order of their numbers.
KINDS: dict[str, type[Panel]] = {
    "losses": LossPanel,
    "layers": LayerPanel,
    "memory": MemoryPanel,
    "images": ImagePanel,
    "log": LogPanel,
    "metrics": MetricsPanel,
    "distribution": DistributionPanel,
}

__all__ = [
    "KINDS",
    "DistributionPanel",
    "ImagePanel",
    "LayerPanel",
    "LogPanel",
    "LossPanel",
    "MemoryPanel",
    "MetricsPanel",
    "Panel",
]
