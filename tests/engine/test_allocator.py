"""Freed memory is kept: what is allocated again and again brings no new pages."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Frees and takes 128 MiB over and over, as steps do with their tensors; prints the pages that were new.
STEPS = """
import resource, sys, torch
from engine.allocator import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(12):
    if step == 6:
        before = faults()
    taken = [torch.ones(1 << 23) for _ in range(4)]
    del taken
print(kept, faults() - before)
"""


def test_steps_touch_no_new_pages() -> None:
    def pages(how: str) -> tuple[str, int]:
        done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
        kept, count = done.stdout.split()
        return kept, int(count)

    _, left = pages("leave")
    kept, touched = pages("keep")
    glibc = platform.libc_ver()[0] == "glibc"
    assert kept == str(glibc)
    assert touched < left / 10 or not glibc


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine import allocator

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()
