"""LitServe with the same net and our decoder, as its documentation recommends for the CPU.

`python -m benchmarks.peers.litserve_app RELEASE PORT WORKERS ORT_THREADS QUEUE BATCH` (QUEUE: `mp` or `zmq`)

The body is taken raw (a dependency), not as a form or base64 in JSON, which would cost it more.
"""
# No `from __future__ import annotations`: LitServe hands the annotation itself to FastAPI.

import sys
from pathlib import Path
from typing import Annotated, Any

import litserve as ls
import numpy as np
import onnxruntime as ort
from fastapi import Depends, Request

from engine.release.bundle import read_release
from engine.tasks.images.preprocess import Preprocess


async def raw_body(request: Request) -> bytes:
    return await request.body()


class Classifier(ls.LitAPI):
    def __init__(self, path: str, threads: int, batch: int) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=0.002, api_path="/predict")
        self._path, self._threads, self._batch = path, threads, batch

    def setup(self, device: str) -> None:
        release = read_release(Path(self._path))
        self._preprocess = Preprocess.from_dict(release.manifest.preprocess)
        self._classes = release.manifest.classes
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        self._session = ort.InferenceSession(release.onnx(), options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Annotated[bytes, Depends(raw_body)]) -> np.ndarray:
        return self._preprocess(request)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        found: np.ndarray = self._session.run(None, {"image": x if self._batch > 1 else x[None]})[0]
        return found if self._batch > 1 else found[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        best = [
            {"label": self._classes[index], "index": int(index), "confidence": float(output[index])}
            for index in np.argsort(-output)[:5]
        ]
        return {**best[0], "top_k": best}


if __name__ == "__main__":
    words = sys.argv[1:]
    server = ls.LitServer(
        Classifier(words[0], int(words[3]), int(words[5])),
        accelerator="cpu",
        workers_per_device=int(words[2]),
        fast_queue=words[4] == "zmq",
    )
    server.run(
        host="127.0.0.1", port=int(words[1]), log_level="warning", generate_client_file=False, access_log=False
    )
