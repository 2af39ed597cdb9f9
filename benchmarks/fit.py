"""`fit`'s forecast against what `train` measured, each in a fresh process.

    python -m benchmarks.fit [--json] [--cases litecnn:128:32,resnet34:512:2,...] [--precision fp32]

A case is model:side:batch. It trains one epoch of three steps on images made for it, with the allocator's settings
that every training has, and validates. Targets: the forecast 0 to 15% above the measured peak, never below it; in
under 10 s (litecnn: 2 s).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CASES = ("litecnn:128:32,litecnn_pro:128:16,resnet34:768:2,resnet34:512:4,resnet50:512:2,resnet50:768:1,"
         "efficientnet_b4:384:2,efficientnet_b4:768:1,convnext_base:384:1,convnext_base:512:1,swin_base_384:384:1,"
         "deit_base_384:384:2")  # fmt: skip
CLASSES = 17


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args(argv)
    results = []
    for case in arguments.cases.split(","):
        model, side, batch = case.split(":")
        with tempfile.TemporaryDirectory() as folder:
            result = _case(Path(folder), model, int(side), int(batch), arguments.precision)
        results.append(result)
        print(
            f"{model:<16} {side:>4} px  batch {batch:>3}  {arguments.precision}"
            f"  forecast {result['predicted_bytes'] / 2**20:7,.0f} MiB  measured {result['peak_memory_bytes'] / 2**20:7,.0f} MiB"
            f"  ratio {result['ratio']:.2f}  fit {result['fit_s']:.1f} s, again {result['cached_s']:.1f} s",
            file=sys.stderr if arguments.json else sys.stdout,
            flush=True,
        )
    if arguments.json:
        print(json.dumps({"results": results}))


def _case(folder: Path, model: str, side: int, batch: int, precision: str) -> dict[str, Any]:
    _images(folder / "data", side, 3 * batch)
    words = [f"model={model}", "data=folder", f"data.root={folder / 'data'}", f"data.img_size={side}",
             f"training.batch_size={batch}", f"training.precision={precision}", "training.epochs=1",
             "device.prefer=cpu"]  # fmt: skip
    began = time.monotonic()
    found = _engine(folder, "fit", *words)
    fit_s = time.monotonic() - began
    began = time.monotonic()
    _engine(folder, "fit", *words)
    cached_s = time.monotonic() - began
    result = _engine(folder, "train", *words)
    return {
        "model": model,
        "img_size": side,
        "batch_size": batch,
        "precision": precision,
        "predicted_bytes": found["predicted_bytes"],
        "peak_memory_bytes": result["peak_memory_bytes"],
        "ratio": found["predicted_bytes"] / result["peak_memory_bytes"],
        "fit_s": fit_s,
        "cached_s": cached_s,
    }


def _images(root: Path, side: int, count: int) -> None:
    """`count` images to train on and a few to validate with, in as many classes as the manual's data where they go."""
    numbers = np.random.default_rng(0)
    classes = min(CLASSES, count)
    for part, many in (("train", count), ("val", classes)):
        for index in range(many):
            place = root / part / f"class{index % classes:02}"
            place.mkdir(parents=True, exist_ok=True)
            pixels = numbers.integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.jpg")


def _engine(folder: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine", "--workspace", str(folder / "workspace"), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    main()
