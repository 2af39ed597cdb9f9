"""glibc's allocator with settings of its own choice left out, so that a training's memory is a property of the run.

By itself glibc moves the size from which it maps memory, and gives memory back, as the run goes: where it ends
depends on the order of things. Fixed at the largest size that glibc allows and never giving back, the heap is warm
after the first steps: a step faults no page in, which measured a tenth quicker than the default, and its greatest
size is what `fit` forecasts.

Small pieces are kept apart. For an address that is a multiple of 64, as torch asks for, glibc cuts some dozen bytes
off both ends of what it finds and offers them to whoever wants so few next. One that stays there, between two tensors,
keeps their room from ever being one piece again: the heap grew in the second step by up to a fifth, another amount in
each run. Thousands of small free pieces elsewhere are taken first, if nothing keeps those that were just cut off at
hand: the caches of each thread do, and can be switched off only before a program begins (`begin_anew`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

MAPPED_FROM = 32 << 20  # bytes, the greatest M_MMAP_THRESHOLD
CELL, CELLS = 64 << 10, 256  # bytes and count of the places for what is small, but not tiny
_TINY, _TINY_COUNT = range(24, 121, 16), 4096  # sizes of which the allocator cuts off, with its header of 8 bytes
_MXFAST, _TRIM_THRESHOLD, _MMAP_THRESHOLD = 1, -1, -3  # mallopt's numbers in malloc.h
_TUNABLES = "GLIBC_TUNABLES"
_NEVER = 2**31 - 1  # its largest int


def begin_anew() -> None:
    """Begin this `python -m engine` once more, as the same process, with glibc's caches of each thread off.

    Nothing happens where somebody has set glibc's tunables, or where this program is part of another.
    """
    words = sys.orig_argv
    if sys.platform == "linux" and _TUNABLES not in os.environ and words[1:3] == ["-m", "engine"]:
        os.environ[_TUNABLES] = "glibc.malloc.tcache_count=0"
        os.execv(sys.executable, [sys.executable, *words[1:]])


@cache
def fix_allocator() -> bool:
    """Fix the settings for the rest of this process; False where the C library has none such."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.PyDLL(None)
    mallopt = getattr(library, "mallopt", None)
    if mallopt is None:
        return False
    fixed = mallopt(_MMAP_THRESHOLD, MAPPED_FROM) and mallopt(_TRIM_THRESHOLD, _NEVER) and mallopt(_MXFAST, 0)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    for size in _TINY:
        _leave_free(library, size, _TINY_COUNT)
    _leave_free(library, CELL, CELLS)
    return bool(fixed)


def _leave_free(library: Any, size: int, count: int) -> None:
    """Make free pieces that have no free neighbour to be joined with: every second one of a row. The others are never
    written to, so that they hardly take memory."""
    row = [library.malloc(size) for _ in range(2 * count)]
    for piece in row[::2]:
        library.free(piece)
