"""Tests of the device code: on a GPU with ``--gpu`` (``make test-gpu``), else on a simulated one.

What needs the card itself, code that is generated for it, is in ``test_card.py`` and is collected with ``--gpu`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from simulated import State, simulated_gpu
from steps import recipe_for, start, teacher
from torch import nn

from engine.recipe import Recipe


@pytest.fixture(autouse=True, scope="module")
def gpu(request: pytest.FixtureRequest) -> Iterator[State | None]:
    """What the simulated device counts; None on a GPU."""
    if request.config.getoption("--gpu"):
        if not torch.cuda.is_available():
            pytest.exit("PyTorch sees no GPU here: `make test` has these tests on a simulated one", returncode=2)
        yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, simulated_gpu(patch) as state:
        yield state
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network(gpu: State | None) -> nn.Module:
    return teacher("resnet18" if gpu is None else "convnet3")


@pytest.fixture(scope="module")
def images_BCHW(gpu: State | None) -> torch.Tensor:
    del gpu  # is there before
    return start()


@pytest.fixture(scope="module")
def recipe(network: nn.Module) -> Recipe:
    return recipe_for(network)
