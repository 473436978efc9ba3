"""What only a card shows: steps whose code is generated for it. ``make test-gpu`` alone collects these."""

from __future__ import annotations

from dataclasses import replace

import torch
from steps import CLASSES, DEVICE, SIZE, assert_the_same_step
from torch import nn

from engine import models
from engine.recipe import Recipe


def test_a_compiled_step_is_the_step(images_BCHW: torch.Tensor, network: nn.Module, recipe: Recipe) -> None:
    """In one piece: micro-batches are not compiled."""
    assert_the_same_step(images_BCHW, network, recipe, replace(recipe, captured=True, compiled=True))


def test_a_compiled_student_learns_as_a_plain_one() -> None:
    """A few steps, forward and backward through the code generator: the losses are near."""
    losses = []
    for compiled in (False, True):
        student = models.build("resnet18", CLASSES, SIZE, "standard")
        models.initialise(student, 0, "student")
        student.to(DEVICE, memory_format=torch.channels_last).train()
        optimiser = torch.optim.AdamW(student.parameters(), 1e-3, fused=True)
        trained = torch.compile(student, dynamic=False) if compiled else student
        images_NCHW = torch.randn(32, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)).to(DEVICE)
        labels_N, own = torch.arange(32, device=DEVICE) % CLASSES, []
        for _ in range(4):
            with torch.autocast("cuda", torch.bfloat16):
                logits_NC = trained(images_NCHW.contiguous(memory_format=torch.channels_last))
            loss = torch.nn.functional.cross_entropy(logits_NC.float(), labels_N)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            own.append(float(loss.detach()))
        losses.append(own)
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0.05, atol=0.05)
