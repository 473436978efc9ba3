"""Memory that tensors give back is kept for the next ones, where the C library is glibc.

By itself glibc returns a large block to the system as soon as it is free and asks for it anew: each step of training
or recovery on a CPU touches thousands of new pages, each of which the kernel clears first (``docs/performance.md``
has what that costs). A process then holds what it held at its peak, which its run needs again in the next step.
"""

from __future__ import annotations

import ctypes
import platform

#: Parameters of mallopt(3): bytes from which a block is mapped by itself; bytes free at the end of the heap from which
#: they are given back; bytes the heap grows by at a time beyond what is asked for.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD = -3, -1, -2
SETTINGS = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_TOP_PAD: 64 << 20}


def keep_freed_memory() -> bool:
    """Ask the C library for it; False where it is another one or refuses."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(parameter, value) for parameter, value in SETTINGS.items()]
    return all(accepted)
