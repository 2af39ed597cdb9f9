"""Which accelerator a run takes: CUDA, else Apple's MPS, else the CPU, and a word when it was not the one wanted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["cuda", "mps", "cpu", "xpu"]
ORDER: tuple[Kind, ...] = ("cuda", "mps", "cpu")  # Intel's xpu is experimental: only when asked for


@dataclass(frozen=True)
class ChosenDevice:
    """`kind` is torch's word for it, `name` the maker's, `note` why it is not the one asked for, or ""."""

    kind: Kind
    name: str
    note: str = ""


def choose_device(prefer: str = "auto") -> ChosenDevice:
    """The device to work on.

    Args:
        prefer: `auto`, or a device; one that is not there falls back down CUDA → MPS → CPU, with a note.
    """
    if prefer != "auto":
        ready, why = _probe(prefer)
        if ready:
            return ChosenDevice(prefer, _name(prefer))  # type: ignore[arg-type]
        kind = _first()
        return ChosenDevice(kind, _name(kind), f"{prefer} is not available here ({why}): using {kind}")
    return ChosenDevice(_first(), _name(_first()))


def devices_there() -> list[ChosenDevice]:
    """Every kind of device that torch can use here, the CPU last."""
    kinds: tuple[Kind, ...] = ("cuda", "mps", "xpu", "cpu")
    return [ChosenDevice(kind, _name(kind)) for kind in kinds if _probe(kind)[0]]


def _first() -> Kind:
    return next(kind for kind in ORDER if kind == "cpu" or _probe(kind)[0])


def _probe(kind: str) -> tuple[bool, str]:
    import torch

    if kind == "cpu":
        return True, ""
    if kind == "cuda":
        if torch.cuda.is_available():
            return True, ""
        built = torch.version.cuda or torch.version.hip
        return False, "no working GPU or driver" if built else "this torch is built for the CPU alone"
    if kind == "mps":
        if torch.backends.mps.is_available():
            return True, ""
        return False, "this macOS or Mac has none" if torch.backends.mps.is_built() else "not a Mac with Metal"
    if kind == "xpu":
        return bool(torch.xpu.is_available()), "no Intel GPU that torch can use"
    return False, "unknown"


def _name(kind: str) -> str:
    import torch

    if kind == "cuda":
        return str(torch.cuda.get_device_name())
    if kind == "xpu":
        return str(torch.xpu.get_device_name())
    if kind == "mps":
        return "Apple GPU"
    return _cpu_name()


def _cpu_name() -> str:
    import platform
    from pathlib import Path

    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
