"""Training figures: the digits with the default recipe and three seeds, and litecnn on a folder of photographs.

    python -m benchmarks.training [--json] [--clothing DIR [--epochs N]] [--seeds 0,1,2]

Targets on two CPU cores: digits, mean validation accuracy of the seeds at least 0.98, each in under 60 s;
the clothing photographs at 128 px, from scratch, at least 0.70 within 600 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(argv: list[str] | None = None) -> None:
    """Train, print a table, and with --json one object `{"results": [...]}`; seconds include the start of Python."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seeds", default="0,1,2", help="of the digits' runs")
    parser.add_argument("--clothing", type=Path, metavar="DIR", help="train/ and val/ of class folders")
    parser.add_argument("--epochs", type=int, help="of the clothing run (default: by the size of the data)")
    arguments = parser.parse_args(argv)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        for seed in arguments.seeds.split(","):
            result = _train(workspace, f"training.seed={seed}")
            results.append({"name": f"digits, seed {seed}", **result, "target_accuracy": None, "target_s": 60.0})
            _print(results[-1], arguments.json)
        mean = statistics.mean(result["accuracy"] for result in results)
        slowest = max(result["seconds_s"] for result in results)
        results.append(
            {
                "name": "digits, mean",
                "accuracy": mean,
                "seconds_s": slowest,
                "target_accuracy": 0.98,
                "target_s": 60.0,
            }
        )
        _print(results[-1], arguments.json)
        if arguments.clothing:
            words = ["data=folder", f"data.root={arguments.clothing}", "data.img_size=128"]
            if arguments.epochs:
                words.append(f"training.epochs={arguments.epochs}")
            result = _train(workspace, *words)
            results.append({"name": "clothing, 128 px", **result, "target_accuracy": 0.70, "target_s": 600.0})
            _print(results[-1], arguments.json)
    if arguments.json:
        print(json.dumps({"results": results}))


def _train(workspace: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace), "train", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    result = json.loads(done.stdout)
    return {
        "accuracy": result["best"]["accuracy"],
        "f1_macro": result["best"]["f1_macro"],
        "epoch": result["best"]["epoch"],
        "epochs": result["epochs"],
        "seconds_s": result["seconds_s"],
        "samples_per_s": result["samples_per_s"],
        "peak_memory_bytes": result["peak_memory_bytes"],
    }


def _print(result: dict[str, Any], as_json: bool) -> None:
    stream = sys.stderr if as_json else sys.stdout
    target = f"at least {result['target_accuracy']:.2f}, " if result["target_accuracy"] else ""
    print(
        f"{result['name']:<18} accuracy {result['accuracy']:.4f}  {result['seconds_s']:6.1f} s"
        f"  (target: {target}under {result['target_s']:.0f} s)",
        file=stream,
        flush=True,
    )


if __name__ == "__main__":
    main()
