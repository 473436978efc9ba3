"""Writing that a GPU does not wait for: one thread does it, in order, while the next steps are computed.

On a CPU the cores belong to the computation, and what is to be written is written at once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch


class Behind:
    """A context in which work is done behind the computation; its end waits for all of it."""

    def __init__(self, device: torch.device) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind") if device.type != "cpu" else None
        self._last: Future[None] | None = None

    def do(self, work: Callable[[], None]) -> None:
        """Do work after what was given before it. Raises what the work before raised."""
        if self._pool is None:
            work()
            return
        self.finish()
        self._last = self._pool.submit(work)

    def finish(self) -> None:
        """Wait for the work given last. Raises what it raised."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """What is under way is finished; its error is raised unless there is another already."""
        try:
            if kind is None:
                self.finish()
        finally:
            if self._pool is not None:
                self._pool.shutdown()


def on_host(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A copy of a tensor as it is at this point of the computation; what is returned waits for it.

    From a GPU it is copied into pinned memory, between two steps and without the host waiting.
    """
    tensor = tensor.detach()
    if tensor.device.type != "cuda":
        copy = tensor.clone()
        return lambda: copy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(tensor.device))

    def wait() -> torch.Tensor:
        done.synchronize()
        return host

    return wait
