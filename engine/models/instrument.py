"""Looking into a teacher: the inputs of its BatchNorm layers and its pooled feature, in one forward pass.

``Probe`` does it with hooks, for any network. ``traced`` gives the same as an ordinary graph of operations whose
outputs they are, which compilers take whole and in which operations can be exchanged (``engine.models.lowering``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from engine.models.lowering import lowered

#: What recovery calls: logits (N, C), features (N, D), BN inputs (N, F, H, W) in ``bn_layers`` order.
Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]]


def bn_layers(network: nn.Module) -> list[tuple[str, nn.BatchNorm2d]]:
    """Names and BatchNorm layers, in module order."""
    return [(name, module) for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]


def classifier_layer(network: nn.Module) -> nn.Linear:
    """The last Linear layer, whose input is the feature. Raises ValueError where there is none."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise ValueError("the network has no Linear layer that could be its classifier")
    return layers[-1]


def multiplications(network: nn.Module, resolution: int) -> float:
    """Multiplications of the convolutions and linear layers in a forward pass of one image."""
    total = 0.0

    def count(layer: nn.Module, _arguments: tuple[Any, ...], outputs: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        total += outputs.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, resolution, resolution, device=layers[0].weight.device))
    finally:
        for handle in handles:
            handle.remove()
    return total


class Probe:
    """Calls a network and returns (logits (N, C), features (N, D), BN inputs (N, F, H, W) in ``bn_layers`` order)."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._inputs: dict[int, torch.Tensor] = {}
        self._feature: torch.Tensor | None = None
        self._layers = [layer for _, layer in bn_layers(network)]
        self._handles = [layer.register_forward_pre_hook(self._keep_input) for layer in self._layers]
        self._handles.append(classifier_layer(network).register_forward_pre_hook(self._keep_feature))

    def _keep_input(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._inputs[id(module)] = arguments[0]

    def _keep_feature(self, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._feature = arguments[0].flatten(1)

    def __call__(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        try:
            logits = self.network(images_NCHW)
            if self._feature is None:
                raise RuntimeError("the network did not call its classifier layer")
            return logits, self._feature, [self._inputs[id(layer)] for layer in self._layers]
        finally:  # a pass that ran out of memory must not keep half of the activations
            self._inputs.clear()
            self._feature = None

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


class _Tracer(fx.Tracer):
    """Sees convolutions of any kind as one operation each."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def traced(network: nn.Module) -> fx.GraphModule | None:
    """A network in eval mode as a graph that returns what ``Probe`` does; None where it cannot be traced.

    Parameters and layers are the network's own. Control flow that depends on values cannot be traced, and neither can
    a network that calls a BatchNorm or the classifier by another way than the layer.
    """
    try:  # the network's own code meets stand-ins for tensors, and may fail on them in any of these ways
        graph = _Tracer().trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, NotImplementedError, AttributeError):
        return None
    module = fx.GraphModule(network, graph)
    calls = {str(node.target): node for node in graph.nodes if node.op == "call_module"}
    classifier = classifier_layer(network)
    name = next(name for name, layer in network.named_modules() if layer is classifier)
    names = [name for name, _ in bn_layers(network)]
    if any(wanted not in calls for wanted in (name, *names)):
        return None
    output = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        features = graph.call_method("flatten", (calls[name].args[0], 1))
    output.args = ((output.args[0], features, [calls[one].args[0] for one in names]),)
    module.recompile()
    return module


@contextmanager
def looking_into(network: nn.Module, resolution: int) -> Iterator[Forward]:
    """What ``Probe`` does for a frozen network and images of one size, as fast as the network's device can.

    Without hooks where the network can be traced; its weights' layout in memory becomes the one its device prefers.
    """
    network.to(memory_format=torch.channels_last)
    graph = traced(network)
    if graph is None:
        probe = Probe(network)
        try:
            yield probe
        finally:
            probe.close()
        return
    weight = next(network.parameters())
    if weight.device.type == "cpu":
        graph = lowered(graph, torch.zeros(1, 3, resolution, resolution, dtype=weight.dtype))
    yield graph
