"""The panels of the monitor. Each draws from the view it is given; only the image panel opens files, by picture."""

from wmdd_tui.widgets.panels.base import Panel
from wmdd_tui.widgets.panels.images import ImagePanel
from wmdd_tui.widgets.panels.layers import LayerPanel
from wmdd_tui.widgets.panels.log import LogPanel
from wmdd_tui.widgets.panels.losses import LossPanel
from wmdd_tui.widgets.panels.memory import MemoryPanel
from wmdd_tui.widgets.panels.metrics import MetricsPanel

__all__ = ["ImagePanel", "LayerPanel", "LogPanel", "LossPanel", "MemoryPanel", "MetricsPanel", "Panel"]
