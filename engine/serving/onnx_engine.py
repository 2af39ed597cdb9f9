"""The ONNX engine: a release's net on ONNX Runtime's CPU kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from engine.devices.cores import available_cores, cores_of
from engine.errors import Failed
from engine.release.bundle import Release

_MOST_ROWS = 8  # more in one run is no faster on a CPU, and ONNX Runtime keeps the memory of its largest run


class OnnxEngine:
    """ONNX Runtime on the CPU: one thread a request where many are asked, all cores where one is alone."""

    name, precision, in_flight = "onnx", "fp32", 0

    def __init__(self, release: Release) -> None:
        cores = available_cores()
        try:
            net = release.onnx()
            self._narrow = _session(net, 1)
            self._wide = _session(net, cores) if cores > 1 else self._narrow
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            raise Failed(
                f"release {release.id[:8]} does not load ({first_line(error)})",
                "deploy another",
                kind="unloadable",
            ) from None
        self.precision = release.manifest.precision
        self._input = self._narrow.get_inputs()[0].name
        output = self._narrow.get_outputs()[0].name
        self._outputs, self._gives_logits = [output], output not in ("probabilities", "values")
        # After a run of many rows the arena gives its memory back.
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def __call__(self, batch: np.ndarray, *, alone: bool = False) -> np.ndarray:
        session = self._wide if alone else self._narrow
        how = self._shrinking if len(batch) > 1 else None
        runs = [
            session.run(self._outputs, {self._input: batch[start : start + _MOST_ROWS]}, how)[0]
            for start in range(0, len(batch), _MOST_ROWS)
        ]
        found: Any = runs[0] if len(runs) == 1 else np.concatenate(runs)
        return probabilities(found) if self._gives_logits else found.astype(np.float32, copy=False)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: np.ndarray = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32, copy=False)
    return found


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _session(net: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Threads that spin after the run's end would take the cores from the next decoding.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if others := cores_of(threads)[1:]:  # the caller has the first; ONNX Runtime counts from 1
        options.add_session_config_entry(
            "session.intra_op_thread_affinities", ";".join(str(core + 1) for core in others)
        )
    return ort.InferenceSession(net, options, providers=["CPUExecutionProvider"])
