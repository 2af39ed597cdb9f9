"""ONNX files run in this process: sessions, batches of named inputs. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Inputs = dict[str, np.ndarray]


def open_session(model: bytes, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU; `threads` 0: one a core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    else:  # several models take turns: threads that wait busily would take the cores from the others
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_batches(session: Any, batches: Iterable[Inputs]) -> np.ndarray:
    """The first output of every batch, one after the other: [samples, ...]."""
    return np.concatenate([session.run(None, batch)[0] for batch in batches])
