"""Memory that a large input took, given back to the system."""

from __future__ import annotations

import ctypes
import sys

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None


def give_memory_back() -> None:
    """Return what the C library keeps of freed memory to the system (glibc; others do so by themselves)."""
    if _TRIM is not None:
        _TRIM(0)
