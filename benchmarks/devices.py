"""What each device here is worth: an epoch of training, the latency of one image, memory, and what an epoch costs.

    python -m benchmarks.devices [--json] [--model resnet18] [--img-size 128] [--images 640] [--hourly-usd 0.69]
                                 [--workspace DIR]

On every device that is there, `python -m engine train` runs two epochs over the same JPEGs, which are made by seed,
with the batch, workers and limits that the config has for it. The second epoch counts: the first also warms caches
up. It includes the validation. Then the checkpoint answers single images, of which the median counts. Memory is
`peak_memory_bytes`: a GPU's allocator's, the process's growth on a CPU. The cost is the epoch's share of an hour.
With a workspace the rates are kept there, for `cloud plan`; `engine bench devices` gives its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._pipeline import photographs
from engine.cloud.rates import keep_rates
from engine.config import load_settings
from engine.devices.detect import devices_there
from engine.store.workspace import Workspace
from engine.training.inference import load_for_inference
from engine.training.runs import find_run, read_metrics

_SINGLES = 60
_WARM = 10


def main(argv: list[str] | None = None) -> None:
    """Measure, print a line a device, and with --json one object `{"results": [...]}`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--img-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=640, help="three quarters train, one validates")
    parser.add_argument("--hourly-usd", type=float, help="price of an hour of this machine")
    parser.add_argument("--workspace", type=Path, help="keep the rates there, for cloud plan")
    arguments = parser.parse_args(argv)
    stream = sys.stderr if arguments.json else sys.stdout
    results = []
    with tempfile.TemporaryDirectory() as folder:
        photos = photographs(Path(folder) / "photos", arguments.images)
        for device in devices_there():
            words = ["data=folder", f"data.root={photos}", f"data.img_size={arguments.img_size}",
                     f"model.name={arguments.model}", f"device.prefer={device.kind}"]  # fmt: skip
            result = {"device": device.kind, "name": device.name, "model": arguments.model}
            result |= {"img_size": arguments.img_size}
            result |= _measure(Path(folder) / device.kind, words, arguments.hourly_usd)
            results.append(result)
            cost = f"  {result['epoch_usd']:.6f} $ an epoch" if result["epoch_usd"] is not None else ""
            print(
                f"{device.kind:<5} {result['epoch_s']:8.2f} s an epoch  {result['samples_per_s']:8.0f} images/s"
                f"  {result['latency_ms']:7.2f} ms an image  {result['peak_memory_bytes'] / 2**20:7.0f} MiB{cost}",
                file=stream,
                flush=True,
            )
    if arguments.workspace:
        print(f"kept for cloud plan: {keep_rates(Workspace(arguments.workspace), results)}", file=stream)
    if arguments.json:
        print(json.dumps({"results": results}))


def _measure(root: Path, words: list[str], hourly_usd: float | None) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine", "--workspace", str(root), "train", "training.epochs=2", "--json"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    trained = json.loads(done.stdout)
    workspace = Workspace(root)
    folder = find_run(workspace, "latest")
    first, second = (row["seconds_s"] for row in read_metrics(folder))
    batch = folder.read_manifest()["settings"]["training"]["batch_size"]
    return {
        "batch_size": batch,
        "precision": trained["precision"],
        "epoch_s": second - first,
        "samples_per_s": trained["samples_per_s"],
        "latency_ms": _latency_ms(workspace, words, trained["checkpoint"]),
        "peak_memory_bytes": trained["peak_memory_bytes"],
        "epoch_usd": None if hourly_usd is None else (second - first) / 3600 * hourly_usd,
    }


def _latency_ms(workspace: Workspace, words: list[str], checkpoint: str) -> float:
    """From one image, ready for the net, to its probabilities back in memory: the median."""
    loaded = load_for_inference(workspace, load_settings(None, workspace.root, words).settings, checkpoint)
    image = np.random.default_rng(0).normal(size=(1, *loaded.medium.shape)).astype(np.float32)
    taken = []
    for _ in range(_WARM + _SINGLES):
        began = time.perf_counter()
        loaded.run(image)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[_WARM:]) * 1000


if __name__ == "__main__":
    main()
