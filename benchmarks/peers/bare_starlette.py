"""The plainest fast server of one net: Starlette, a thread pool, ONNX Runtime; no swaps, no limits.

`python -m benchmarks.peers.bare_starlette RELEASE PORT ORT_THREADS POOL_THREADS`
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import anyio.to_thread
import numpy as np
import onnxruntime as ort
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from engine.release.bundle import read_release
from engine.tasks.images.preprocess import Preprocess


def build(path: Path, ort_threads: int, pool: int) -> Starlette:
    release = read_release(path)
    preprocess, classes = Preprocess.from_dict(release.manifest.preprocess), release.manifest.classes
    options = ort.SessionOptions()
    options.intra_op_num_threads = ort_threads
    session = ort.InferenceSession(release.onnx(), options, providers=["CPUExecutionProvider"])
    limiter = anyio.CapacityLimiter(pool)

    def classify(body: bytes) -> list[dict[str, object]]:
        row = session.run(None, {"image": preprocess(body)[None]})[0][0]
        return [
            {"label": classes[index], "index": int(index), "confidence": float(row[index])}
            for index in np.argsort(-row)[:5]
        ]

    async def predict(request: Request) -> Response:
        best = await anyio.to_thread.run_sync(partial(classify, await request.body()), limiter=limiter)
        return JSONResponse({**best[0], "top_k": best})

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


if __name__ == "__main__":
    app = build(Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
