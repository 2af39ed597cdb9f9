"""The torch engine: a release's net on CUDA, MPS or (for tests and by wish) the CPU, with dynamic batching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from engine.devices.detect import choose_device
from engine.errors import Failed
from engine.release.bundle import Release
from engine.release.convert import CLOSENESS, scale_of
from engine.serving.batching import Batcher
from engine.serving.onnx_engine import OnnxEngine, first_line
from engine.tasks.task import Kind

_IN_FLIGHT = 64


class TorchEngine:
    """Raises Failed when the net cannot be built, or answers on the device otherwise than its release.

    Args:
        kind: of the release's task.
        device: as `engine.devices.detect.choose_device`.
        window_s, most: as `Batcher`.
        accelerator_only: a device that turns out to be the CPU is refused.
    """

    name = "torch"

    def __init__(
        self,
        release: Release,
        kind: Kind,
        device: str,
        window_s: float,
        most: int,
        *,
        accelerator_only: bool = False,
    ) -> None:
        if release.manifest.precision != "fp32":
            raise _failed(release, f"{release.manifest.precision} has no torch form")
        self._device = choose_device(device).kind
        if accelerator_only and self._device == "cpu":
            raise _failed(release, "there is no accelerator")
        self.precision = "fp32"
        self.in_flight = _IN_FLIGHT if self._device != "cpu" else 0
        try:
            self._net = _load(release, kind).to(self._device).eval()
            self._pinned = (
                torch.empty((most, *release.manifest.input["shape"][1:]), pin_memory=True)
                if self._device == "cuda"
                else None
            )
        except Exception as error:  # noqa: BLE001 - safetensors, torch and a factory of one's own share no class
            raise _failed(release, first_line(error)) from None
        self._softmax = release.manifest.outputs()["name"] == "probabilities"
        self._check(release, kind.medium(_card(release)).golden())
        self._batcher = Batcher(self._run, most, window_s)

    def __call__(self, batch: np.ndarray, *, alone: bool = False) -> np.ndarray:
        return self._batcher(batch)

    def _check(self, release: Release, golden: np.ndarray) -> None:
        """Compare with ONNX Runtime on the golden inputs; half precision only where it passes too."""
        tries = ("fp16", "fp32") if self._device in ("cuda", "mps") else ("fp32",)
        found = passing_precision(tries, lambda one: self._run(golden, one), OnnxEngine(release)(golden))
        if found is None:
            raise _failed(release, f"it answers otherwise on {self._device} than in ONNX Runtime")
        self.precision = found

    @torch.inference_mode()
    def _run(self, batch: np.ndarray, precision: str | None = None) -> np.ndarray:
        rows: Any = torch.from_numpy(np.require(batch, requirements=["C", "W"]))
        if self._pinned is not None and len(rows) <= len(self._pinned):
            # One thread runs batches, and the answer is awaited below: the buffer is free again by then.
            rows = self._pinned[: len(rows)].copy_(rows)
        with torch.autocast(self._device, torch.float16, enabled=(precision or self.precision) == "fp16"):
            outputs = self._net(rows.to(self._device, non_blocking=True)).float()
        found: np.ndarray = (torch.softmax(outputs, 1) if self._softmax else outputs).cpu().numpy()
        return found


def _load(release: Release, kind: Kind) -> torch.nn.Module:
    from safetensors.torch import load

    net = kind.net(_card(release))
    net.load_state_dict(load(release.weights()))
    return net


def _card(release: Release) -> dict[str, Any]:
    return release.manifest.model_dump(include={"architecture", "classes", "preprocess"})


def passing_precision(tries: Sequence[str], run: Callable[[str], np.ndarray], expected: np.ndarray) -> str | None:
    """The first precision in which `run` passes the release's check: the same best class for each input, and no
    number further off than admission allows. None: not even the last."""
    for precision in tries:
        found = run(precision)
        if found.shape != expected.shape or not np.isfinite(found).all():
            continue
        alike = (found.argmax(1) == expected.argmax(1)).all()
        if alike and np.abs(found - expected).max() <= CLOSENESS * scale_of(expected):
            return precision
    return None


def _failed(release: Release, why: str) -> Failed:
    return Failed(
        f"release {release.id[:8]} does not run with torch ({why})",
        "set servers.runtime to onnx or auto, or deploy another",
        kind="unloadable",
    )
