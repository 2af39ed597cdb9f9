"""Apple's GPU as the driver counts it for the whole host: `ioreg`, since torch.mps sees only its own process."""

from __future__ import annotations

import platform
import plistlib
import subprocess
import sys
from dataclasses import replace

from engine.protocol import Device

_COMMAND = ("/usr/sbin/ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator", "-a")


def read_mps(total_bytes: int, system_bytes: int, chip: str, deadline_s: float = 3.0) -> Device | None:
    """The Metal GPU, or None on a host that has none.

    Args:
        total_bytes, system_bytes: the unified memory, and how much of it is in use by everything.
        chip: the processor's name, for a GPU that says none.
    """
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return None
    bare = Device(kind="mps", name=chip, total_bytes=total_bytes, memory={"system_bytes": system_bytes})
    try:
        done = subprocess.run(_COMMAND, capture_output=True, timeout=deadline_s, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return replace(bare, stale=True, problem=f"ioreg: {type(error).__name__}")
    return parse_ioreg(done.stdout, bare)


def parse_ioreg(answer: bytes, bare: Device) -> Device:
    """`bare` with the figures of `ioreg -c IOAccelerator -a`; as it was where they cannot be read."""
    try:
        entries = plistlib.loads(answer)
    except (plistlib.InvalidFileException, ValueError):
        return bare
    for entry in entries if isinstance(entries, list) else []:
        figures = entry.get("PerformanceStatistics") if isinstance(entry, dict) else None
        if not isinstance(figures, dict):
            continue
        named = {
            "driver_bytes": figures.get("In use system memory (driver)"),
            "allocated_bytes": figures.get("Alloc system memory"),
            "in_use_bytes": figures.get("In use system memory"),
        }
        percent = figures.get("Device Utilization %")
        return Device(
            kind="mps",
            name=str(entry.get("model") or bare.name),
            total_bytes=bare.total_bytes,
            used_bytes=_whole(named["in_use_bytes"]),
            utilization=percent / 100 if isinstance(percent, int | float) else None,
            memory={**{key: int(value) for key, value in named.items() if isinstance(value, int)}, **bare.memory},
        )
    return bare


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
