"""What this host's processor can do, as far as it decides how quick a model runs."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from pathlib import Path

# the instructions that decide the speed of convolutions in fp32, bf16 and int8
_TELLING = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
            "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16")  # fmt: skip


@lru_cache(maxsize=1)
def cpu_features() -> list[str]:
    """Those of the telling instruction sets that the processor has; empty where nobody says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        if platform.system() == "Darwin" and platform.machine() == "arm64":
            return ["asimd", "asimddp"]  # every Apple silicon
        return []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            found = set(value.split())
            return [one for one in _TELLING if one in found]
    return []


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """The processor's name as it says it itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        if platform.system() == "Darwin":
            words = ["sysctl", "-n", "machdep.cpu.brand_string"]
            said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
            return said or platform.machine()
    return platform.processor() or platform.machine()


def has_vnni() -> bool:
    """Whether unsigned times signed bytes are summed without overflow (VNNI, or ARM's dot product)."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(cpu_features()))
