"""The most that can be had: decoding and ONNX Runtime on every core, without HTTP, in one process.

`python -m benchmarks.peers.limit RELEASE FOLDER`: for each line on standard input, a number of seconds, it
works that long on the JPEGs of FOLDER and prints how many images a second it did.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import onnxruntime as ort

from engine.release.bundle import read_release
from engine.tasks.images.preprocess import Preprocess


def main() -> None:
    release = read_release(Path(sys.argv[1]))
    preprocess = Preprocess.from_dict(release.manifest.preprocess)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(release.onnx(), options, providers=["CPUExecutionProvider"])
    images = [path.read_bytes() for path in sorted(Path(sys.argv[2]).glob("*.jpg"))]
    cores = os.cpu_count() or 1

    def work(index: int, until: float, done: list[int]) -> None:
        while time.perf_counter() < until:
            session.run(None, {"image": preprocess(images[(index + done[index]) % len(images)])[None]})
            done[index] += 1

    print("ready", flush=True)
    for line in sys.stdin:
        seconds, done = float(line), [0] * cores
        begun = time.perf_counter()
        threads = [threading.Thread(target=work, args=(index, begun + seconds, done)) for index in range(cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(sum(done) / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
