"""Recovery's fast path does what the plain one does: exchanged operations, compiled steps, the ring of losses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from engine import events, models
from engine.augment import draw_views
from engine.behind import Behind, on_host
from engine.concurrency import side_by_side
from engine.losses import Coefficients, Targets, Terms, chunk_loss, collect
from engine.models.instrument import Probe, bn_layers, looking_into, multiplications, traced
from engine.models.lowering import Folded, Matrix, Tiles, lowered
from engine.optimise import _compiled_whole, optimise, optimising
from engine.recipe import Recipe, learning_rates
from engine.telemetry import LossBuffer


def _network(arch: str, resolution: int, stem: str = "auto") -> nn.Module:
    """Frozen, with BatchNorms that change what they are given."""
    network = models.build(arch, 3, resolution, stem, width=8)
    random = torch.Generator().manual_seed(4)
    for _, layer in bn_layers(network):
        for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            tensor.data.copy_(0.5 + torch.rand(len(tensor), generator=random))
    return network.eval().requires_grad_(False)


def _images(count: int, resolution: int) -> torch.Tensor:
    return torch.randn(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("arch", "resolution", "stem"),
    [("resnet18", 64, "standard"), ("resnet18", 36, "tiny"), ("vgg11_bn", 32, "auto"), ("convnet3", 16, "auto")],
)
def test_exchanged_operations_give_the_same(arch: str, resolution: int, stem: str) -> None:
    """In double precision, where only the order of sums is left: logits, features, BN inputs, gradient."""
    network = _network(arch, resolution, stem).double()
    images = _images(2, resolution).double().requires_grad_()
    graph = traced(network)
    assert graph is not None
    found = []
    for forward in (Probe(network), lowered(graph, images[:1].detach())):
        logits, features, inputs = forward(images)
        scalar = logits.sin().sum() + features.cos().sum() + sum(x.square().mean() for x in inputs)
        found.append([logits, features, *inputs, torch.autograd.grad(scalar, images)[0]])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-9)


def test_resnets_have_operations_exchanged() -> None:
    graph = traced(_network("resnet18", 64, "standard"))
    assert graph is not None
    names = [str(node.target) for node in lowered(graph, _images(1, 64)).graph.nodes]
    exchanged = [name for name in names if name.startswith("lowered_")]
    assert "lowered_conv1" in exchanged
    assert "lowered_layer4_1_conv2" in exchanged


class Wayward(nn.Module):
    """A network whose way depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        if images_NCHW.mean() > 100:
            images_NCHW = images_NCHW / 2
        return self.fc(self.bn(images_NCHW).mean((2, 3)))


def test_a_network_that_cannot_be_traced_is_looked_into_with_hooks() -> None:
    network = Wayward().eval()
    assert traced(network) is None
    images = _images(2, 4)
    with looking_into(network, 4) as forward:
        logits, features, inputs = forward(images)
    assert torch.equal(inputs[0], images)
    assert torch.equal(network.fc(features), logits)
    assert not network.bn._forward_pre_hooks


def _recipe(network: nn.Module, count: int, resolution: int, iterations: int) -> Recipe:
    random = torch.Generator().manual_seed(3)
    labels = torch.arange(count) // 2
    share = (labels == labels.unique()[:, None]).float() / 2
    channels = [layer.num_features for _, layer in bn_layers(network)]
    targets = Targets(
        labels, labels, share,
        tuple(torch.randn(len(share), c, generator=random) for c in channels),
        tuple(torch.rand(len(share), c, generator=random) for c in channels),
        torch.randn(count, channels[-1], generator=random),
    )  # fmt: skip
    bound_C = torch.full((3,), 2.0)
    return Recipe(
        targets, Coefficients(1.0, 1.0, 2.0), draw_views(iterations, resolution, 0.3, True, 3, 0, "fast"),
        learning_rates(0.1, iterations), -bound_C, bound_C, (0.5, 0.9),
    )  # fmt: skip


def _trace(network: nn.Module, recipe: Recipe, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows_RL = torch.zeros(len(recipe.lr_T), Terms.width(recipe.layers))
    with looking_into(network, images.shape[-1]) as forward:
        return rows_RL, optimise(images, forward, recipe, rows_RL=rows_RL)


def test_a_compiled_step_is_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function a GPU records, as one graph forward and one backward: the same losses and, but for rounding, images.

    Without the code generator, which needs a compiler and half a minute; tests/gpu has it.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    _compiled_whole.cache_clear()
    network, images = _network("convnet3", 16), _images(4, 16)
    recipe = _recipe(network, 4, 16, 4)
    rows, final = _trace(network, recipe, images)
    fast_rows, fast_final = _trace(network, replace(recipe, compiled=True), images)
    torch.testing.assert_close(fast_rows, rows, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast_final, final, rtol=0, atol=1e-3)
    assert _compiled_whole.cache_info().misses == 1
    _compiled_whole.cache_clear()


def test_going_on_from_an_iteration_leaves_the_same_bytes() -> None:
    network, images = _network("convnet3", 16), _images(6, 16)
    recipe, kept = _recipe(network, 6, 16, 7), {}

    def keep(iteration: int, _terms: Terms, now: torch.Tensor, state: dict[str, torch.Tensor]) -> None:
        if iteration == 3:
            kept.update({"images": now.clone(), **{name: value.clone() for name, value in state.items()}})

    with looking_into(network, 16) as forward:
        whole = optimise(images, forward, recipe, after_step=keep)
        start = kept.pop("images")
        again = optimise(start, forward, recipe, first=4, adam=kept)
    assert torch.equal(whole, again)


def test_chunks_side_by_side_leave_the_same_bytes_as_alone() -> None:
    network = _network("convnet3", 16)
    recipe, starts = _recipe(network, 4, 16, 5), [_images(4, 16), -_images(4, 16), _images(4, 16).flip(3)]
    alone = [_trace(network, recipe, start)[1] for start in starts]
    with looking_into(network, 16) as forward:
        together = dict(side_by_side([partial(optimising, one, forward, recipe) for one in starts], lambda: 2))
    assert all(torch.equal(together[number], final) for number, final in enumerate(alone))
    assert not torch.equal(alone[0], alone[1])


def test_layers_that_match_exactly_have_no_gradient() -> None:
    """Norms of zero: their gradient is zero, not NaN."""
    network, images = _network("convnet3", 16), _images(4, 16).requires_grad_()
    logits, features, inputs = Probe(network)(images)
    labels = torch.zeros(4, dtype=torch.int64)
    targets = Targets(
        labels, labels, torch.full((1, 4), 0.25),
        tuple(torch.zeros(1, x.shape[1]) for x in inputs), tuple(torch.zeros(1, x.shape[1]) for x in inputs),
    )  # fmt: skip
    nothing = [x * 0 for x in inputs]
    terms = chunk_loss(collect(logits, features, nothing, targets), targets, Coefficients(0.0, 0.0, 1.0))
    gradient = torch.autograd.grad(terms.total, images)[0]
    assert torch.equal(gradient, torch.zeros_like(gradient))
    assert float(terms.bn.detach()) == pytest.approx(0, abs=1e-15)


def test_losses_recorded_in_a_ring_come_out_once_and_in_order() -> None:
    told: list[events.Event] = []
    rows_RL = torch.zeros(5, Terms.width(2))
    buffer = LossBuffer(told.append, 0, rows_RL)
    for iteration in range(3, 40):
        rows_RL[iteration % 5] = float(iteration)
        buffer.add(iteration)
    buffer.flush()
    totals = [value for one in told if isinstance(one, events.Iters) for value in one.total]
    assert totals == [float(iteration) for iteration in range(3, 40)]


def test_multiplications_of_a_network() -> None:
    """Three convolutions at 16, 8 and 4 px and the classifier, counted by hand."""
    by_hand = 9 * (3 * 8 * 256 + 8 * 8 * 64 + 8 * 8 * 16) + 8 * 3
    assert multiplications(models.build("convnet3", 3, 16, width=8), 16) == by_hand


def test_what_takes_a_convolutions_place_is_one() -> None:
    for layer, size in ((nn.Conv2d(4, 6, 3, 1, 1), 2), (nn.Conv2d(4, 6, 3, 2, 1), 2), (nn.Conv2d(4, 6, 5, 1, 2), 2)):
        x = torch.randn(2, 4, size, size)
        torch.testing.assert_close(Matrix(layer, size, size)(x), layer(x), rtol=1e-5, atol=1e-5)
    for size in (4, 8):
        layer, x = nn.Conv2d(5, 6, 3, 1, 1).double(), torch.randn(2, 5, size, size).double().requires_grad_()
        tiles = Tiles(layer, size)
        torch.testing.assert_close(tiles(x), layer(x), rtol=1e-9, atol=1e-9)
        gradients = [torch.autograd.grad(one(x).sin().sum(), x)[0] for one in (tiles, layer)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    for kernel, padding in ((7, 3), (3, 1), (3, 3), (4, 1), (5, 2)):
        layer, x = nn.Conv2d(3, 6, kernel, 2, padding), torch.randn(2, 3, 12, 8)
        torch.testing.assert_close(Folded(layer, 12, 8)(x), layer(x), rtol=1e-5, atol=1e-5)


def test_work_behind_is_done_in_order_and_its_errors_surface() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("full")

    with Behind(torch.device("meta")) as behind:  # no CPU: a thread does it
        for number in range(5):
            behind.do(partial(done.append, number))
        behind.finish()
        assert done == list(range(5))
        behind.do(fail)
        with pytest.raises(OSError, match="full"):
            behind.do(partial(done.append, 5))
    assert done == list(range(5))
    with pytest.raises(OSError, match="full"), Behind(torch.device("meta")) as behind:
        behind.do(fail)


def test_a_copy_on_the_host_is_of_the_moment() -> None:
    tensor = torch.zeros(3)
    copy = on_host(tensor)
    tensor += 1
    assert torch.equal(copy(), torch.zeros(3))
