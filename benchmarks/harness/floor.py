"""What a piece of work must cost at least: its operations and bytes, over the peaks measured on the same machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness.timing import repeated
from engine.devices import computes_in_bf16

#: Operations whose operands and results have to go through memory whatever is fused around them.
UNAVOIDABLE = ("convolution", "convolution_backward", "mm", "bmm", "addmm", "baddbmm")
REPEATS = 5


class _Bytes(TorchDispatchMode):
    """Adds up the bytes of operands and results: of all operations, and of those that nothing can be fused into."""

    def __init__(self) -> None:
        super().__init__()
        self.every, self.unavoidable = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name not in ("detach", "t", "empty", "empty_like", "set_"):
            leaves = [one for one in tree_leaves((args, found)) if isinstance(one, torch.Tensor)]
            size = sum(one.numel() * one.element_size() for one in leaves)
            self.every += size
            if name in UNAVOIDABLE:
                self.unavoidable += size
        return found


def counted(work: Callable[[], object]) -> dict[str, int]:
    """Floating-point operations of matrix products and convolutions, bytes through those, bytes through everything."""
    flops, traffic = FlopCounterMode(display=False), _Bytes()
    with flops, traffic:
        work()
    return {
        "flop": flops.get_total_flops(),
        "unavoidable_bytes": traffic.unavoidable,
        "eager_bytes": traffic.every,
    }


def peaks(device: torch.device) -> dict[str, float]:
    """Operations and bytes a second of this machine: matrix products, ResNet's 3×3 convolutions, copies."""
    cuda = device.type == "cuda"
    side = 8192 if cuda else 2048
    found: dict[str, float] = {}
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if computes_in_bf16("auto", device.type) else {})
    for name, dtype in kinds.items():
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        found[f"{name}_product_flops"] = 2 * side**3 / _best(lambda a=left, b=right: a @ b, device)
        for layout, memory in (("nchw", torch.contiguous_format), ("channels_last", torch.channels_last)):
            images, channels, pixels = (256, 256, 28) if cuda else (16, 128, 28)
            x = torch.randn(images, channels, pixels, pixels, device=device, dtype=dtype).to(memory_format=memory)
            w = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(memory_format=memory)
            flop = 2 * images * channels**2 * 9 * pixels**2
            seconds = _best(lambda x=x, w=w: torch.nn.functional.conv2d(x, w, padding=1), device)
            found[f"{name}_convolution_{layout}_flops"] = flop / seconds
    elements = (1 << 30 if cuda else 1 << 27) // 4
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    found["copy_bytes"] = 2 * 4 * elements / _best(lambda: target.copy_(source), device)
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def _best(work: Callable[[], object], device: torch.device) -> float:
    """The shortest repetition: a peak is what the machine can do, not what it usually does."""

    def several() -> None:
        for _ in range(4):
            work()

    return min(repeated(several, REPEATS, device)) / 4


def floor(work: Callable[[], object], device: torch.device, units: float, bf16: bool = False) -> dict[str, Any]:
    """Counts of some work, the peaks, and the least seconds a unit of it can take by either."""
    found, machine = counted(work), peaks(device)
    kind = "bf16" if bf16 and "bf16_product_flops" in machine else "fp32"
    best = max(value for name, value in machine.items() if name.startswith(kind) and name.endswith("flops"))
    traffic = found["unavoidable_bytes"] / (2 if kind == "bf16" else 1)
    return {
        **found,
        "peaks": machine,
        "seconds_by_operations": round(found["flop"] / best / units, 9),
        "seconds_by_bytes": round(traffic / machine["copy_bytes"] / units, 9),
        "seconds_by_eager_bytes": round(found["eager_bytes"] / machine["copy_bytes"] / units, 9),
    }
