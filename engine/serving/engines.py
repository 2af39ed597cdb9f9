"""An engine runs a release's net: ONNX Runtime on the CPU, torch on an accelerator. Worker side.

Both take float32 [N, ...] and give float32 [N, ...], a row an input: probabilities of classes, or values as they
are where the release's manifest says so.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from engine.errors import Failed
from engine.release.bundle import Release
from engine.serving.onnx_engine import OnnxEngine
from engine.tasks.task import load_kind

Runtime = Literal["auto", "onnx", "torch"]

_MOST_ON_DEVICE = 32


class Engine(Protocol):
    """`name` and `precision` say what runs; `in_flight` is how many requests it wants to work on at once
    (0: as many as there are cores)."""

    name: str
    precision: str
    in_flight: int

    def __call__(self, batch: np.ndarray, *, alone: bool = False) -> np.ndarray:
        """The rows; `alone`: nothing else is asked, all cores may work on it."""


def build_engine(
    release: Release, runtime: Runtime, device: str, window_s: float, *, trusted: str = "images"
) -> Engine:
    """The engine for a release.

    Args:
        runtime: `auto` takes torch where there is an accelerator and the release's net agrees there with its
            ONNX form, else ONNX Runtime.
        device: `auto`, `cuda`, `mps`, `cpu` or `xpu`, for torch.
        trusted: code of one's own that the release may name as its task.
        window_s: how long the first request of a batch waits for others on an accelerator.

    Raises:
        Failed: the net does not load, or not with the runtime that was asked for.
    """
    if runtime == "onnx" or (runtime == "auto" and not _accelerator_likely(device)):
        return OnnxEngine(release)
    from engine.serving.torch_engine import TorchEngine

    try:
        kind = load_kind(release.manifest.task, trusted)
        return TorchEngine(release, kind, device, window_s, _MOST_ON_DEVICE, accelerator_only=runtime == "auto")
    except Failed:
        if runtime == "torch":
            raise
        return OnnxEngine(release)


def _accelerator_likely(device: str) -> bool:
    """Whether importing torch to look for an accelerator is worth its second and its 200 MB."""
    if device == "cpu":
        return False
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    return device == "xpu" or Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
