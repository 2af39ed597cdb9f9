"""One snapshot of this host: CPU, memory, the workspace's disk and its accelerators. Torch-free."""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

from engine.devices.apple import read_mps
from engine.devices.nvml import Nvml
from engine.protocol import Device, Devices

_SLOW_S = 3.0  # what costs a process or a walk through sysfs is asked this seldom
_FIRST_S = 0.1  # CPU use is a difference of two looks


class Sampler:
    """Samples this host again and again; close it to end the child that asks NVML.

    Args:
        place: a path on the disk to watch; it need not exist yet.
    """

    def __init__(self, place: Path, name: str | None = None) -> None:
        self._place, self._name = place, name or socket.gethostname()
        self._nvml = Nvml()
        self._process = psutil.Process()
        self._chip = chip_name()
        self._primed = False
        self._slow_at = float("-inf")
        self._mps: Device | None = None
        self._celsius: float | None = None

    def sample(self, gpus: list[Device] | None = None) -> Devices:
        """The host now. `utilization` of the CPU is the share of all cores since the last sample.

        Args:
            gpus: NVIDIA's, for a caller that asks NVML at a pace of its own; None asks it here, and waits.
        """
        busy = psutil.cpu_percent(None if self._primed else _FIRST_S) / 100
        self._primed = True
        memory = psutil.virtual_memory()
        used = int(memory.total - memory.available)
        gpus = self._nvml.sample() if gpus is None else gpus
        if time.monotonic() - self._slow_at >= _SLOW_S:
            self._mps = read_mps(int(memory.total), used, self._chip)
            self._celsius = _cpu_celsius()
            self._slow_at = time.monotonic()
        cpu = Device(
            kind="cpu",
            name=self._chip,
            total_bytes=int(memory.total),
            used_bytes=used,
            utilization=round(min(busy, 1.0), 3),
            temperature_c=self._celsius,
        )
        disk = _disk(self._place)
        return Devices(
            name=self._name,
            devices=[*gpus, *([self._mps] if self._mps else []), cpu],
            process_rss_bytes=int(self._process.memory_info().rss),
            memory_total_bytes=int(memory.total),
            memory_available_bytes=int(memory.available),
            disk_total_bytes=disk[0],
            disk_free_bytes=disk[1],
            problem=self._nvml.problem,
        )

    def close(self) -> None:
        self._nvml.close()


def chip_name() -> str:
    """The processor's name as its maker writes it, else its architecture."""
    if sys.platform == "darwin":
        try:
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
            return done.stdout.strip() or platform.machine()
        except (OSError, subprocess.SubprocessError):
            return platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith(("model name", "Model")):
                    return line.partition(":")[2].strip() or platform.machine()
    except OSError:
        pass
    return platform.machine()


def _cpu_celsius() -> float | None:
    if not hasattr(psutil, "sensors_temperatures"):
        return None
    try:
        found = psutil.sensors_temperatures()
    except OSError:
        return None
    for chip in ("coretemp", "k10temp", "zenpower", "cpu_thermal", "acpitz"):
        if found.get(chip):
            return float(found[chip][0].current)
    return None


def _disk(place: Path) -> tuple[int | None, int | None]:
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return None, None
    return usage.total, usage.free
