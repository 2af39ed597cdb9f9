"""A limit on a training's memory, kept by each device's own allocator."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def memory_limit(kind: str, limit_bytes: int | None, say: Callable[[str], None]) -> Iterator[None]:
    """Allocations beyond `limit_bytes` fail for the block, as if the device were that small.

    On a CPU the limit is on what the process adds to its present data (Linux's RLIMIT_DATA); elsewhere it is said
    that none can be set.
    """
    if limit_bytes is None:
        yield
        return
    if kind == "cpu":
        with _data_limit(limit_bytes, say):
            yield
        return
    import torch

    if kind == "cuda":
        whole, limit = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, torch.cuda
    elif kind == "mps":
        whole, limit = torch.mps.recommended_max_memory(), torch.mps
    else:
        say(f"note: no limit on memory can be set on {kind}")
        yield
        return
    limit.set_per_process_memory_fraction(min(1.0, limit_bytes / whole))
    try:
        yield
    finally:
        limit.set_per_process_memory_fraction(1.0)


@contextlib.contextmanager
def _data_limit(limit_bytes: int, say: Callable[[str], None]) -> Iterator[None]:
    present = _data_bytes()
    if not sys.platform.startswith("linux") or present is None:
        say("note: no limit on a CPU's memory can be set on this system")
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = present + limit_bytes
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """What the process has of private writable memory, bytes."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
