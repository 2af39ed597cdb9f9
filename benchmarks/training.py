"""Training figures, each beside its peer in the same run.

    python -m benchmarks.training [--json] [--what PART,...] [--clothing DIR [--epochs N]] [--seeds 0,1,2]

Parts, with their targets on two CPU cores:
loader    our batches from JPEG: at least 1,800 images/s (beside them a plain pool, and timm's loader)
folder    resnet18, 128 px, batch 32: the trainer's step rate over that of a loop on ready tensors in memory, from
          JPEG at least 0.94, from decoded images at least 0.97
timm      the same, over timm's training loop (benchmarks/peers/timm_train.py): at least 1.0
overhead  the trainer's step over a hand-written loop with the same augmentation: at most 1.02
check     the check of 10,000 unchanged images: well under a second
start     from the command to the first optimiser step of litecnn, check cached: under 5 s
digits    mean validation accuracy of three seeds at least 0.98, each in under 60 s
clothing  litecnn at 128 px from scratch on --clothing: at least 0.80 within 900 s

`--clothing` (train/ and val/ of class folders) also stands in for the photographs that are made by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the train verb does, before torch is loaded

PARTS = ("loader", "folder", "timm", "overhead", "check", "start", "digits", "clothing")
THREADS = min(os.cpu_count() or 1, 2)
_BATCH = 32
_FIRST_STEP = """
import os, sys, time
from engine.training import loop
real = loop.Trainer._apply
def first(self):
    real(self)
    os.write(1, str(time.time()).encode())
    os._exit(0)
loop.Trainer._apply = first
from engine.cli.main import main
main(sys.argv[1:])
"""


def main(argv: list[str] | None = None) -> None:
    """Measure, print a line a result, and with --json one object `{"results": [...]}`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--what", default=",".join(PARTS), help="the parts, with commas between")
    parser.add_argument("--seeds", default="0,1,2", help="of the digits' runs")
    parser.add_argument("--clothing", type=Path, metavar="DIR", help="train/ and val/ of class folders")
    parser.add_argument("--epochs", type=int, help="of the clothing run (default: by the size of the data)")
    parser.add_argument("--rounds", type=int, default=5, help="turns that each takes")
    arguments = parser.parse_args(argv)
    wanted = arguments.what.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results: list[dict[str, Any]] = []

    def tell(name: str, value: float, unit: str, target: str, **more: Any) -> None:
        results.append({"name": name, "value": value, "unit": unit, "target": target, **more})
        beside = ", ".join(f"{key} {found:,.4g}" for key, found in more.items() if found is not None)
        line = f"{name:<34} {value:10,.3f} {unit:<9} (target: {target})  {beside}"
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if {"loader", "folder", "timm", "overhead", "start"} & set(wanted):
            photographs = arguments.clothing or _photographs(place / "photographs")
        for part in PARTS:
            if part not in wanted:
                continue
            if part == "loader":
                _loader(photographs, place, arguments.rounds, tell)
            elif part in ("folder", "timm", "overhead"):
                _steps(part, photographs, place, arguments.rounds, tell)
            elif part == "check":
                _check(place, tell)
            elif part == "start":
                _start(photographs, place, tell)
            elif part == "digits":
                _digits(place, arguments.seeds.split(","), tell)
            elif arguments.clothing:
                _clothing(place, arguments.clothing, arguments.epochs, tell)
    if arguments.json:
        print(json.dumps({"results": results}))


def _photographs(folder: Path) -> Path:
    from benchmarks._pipeline import photographs

    return photographs(folder)


def _loader(root: Path, place: Path, rounds: int, tell: Any) -> None:
    import torch

    from benchmarks._pipeline import loader_rates, settings_for
    from engine.tasks.images.task import load_task

    torch.set_num_threads(THREADS)
    task = load_task(settings_for(root, place / "workspace", "data.cache_bytes=0"))
    peer = _timm_epochs(root)
    rates = loader_rates(task, batch_size=_BATCH, workers=THREADS, rounds=rounds, peer=peer)
    tell(
        "loader alone, from JPEG",
        rates["ours"],
        "images/s",
        "1,800",
        plain_pool=rates["plain"],
        timm=rates["timm"],
    )


def _timm_epochs(root: Path) -> Any:
    from benchmarks.peers.timm_train import TimmEpochs

    return TimmEpochs(root, "resnet18", side=128, batch_size=_BATCH, workers=THREADS, threads=THREADS)


def _steps(part: str, root: Path, place: Path, rounds: int, tell: Any) -> None:
    import torch

    from benchmarks._pipeline import Ours, PlainLoop, Racer, settings_for, take_turns
    from engine.training.allocator import fix_allocator

    fix_allocator()  # as every training does
    torch.set_num_threads(THREADS)
    kept = settings_for(root, place / "workspace")
    bare = settings_for(root, place / "workspace", "data.cache_bytes=0")
    cached = Ours(kept, place / "kept")
    racers: dict[str, Racer] = {"cached": cached}
    if part == "overhead":
        racers["plain"] = PlainLoop(cached.task, kept, raw=False)
    else:
        racers["jpeg"] = Ours(bare, place / "bare")
        racers["peer"] = PlainLoop(cached.task, kept, raw=True) if part == "folder" else _timm_epochs(root)
    seconds = take_turns(racers, rounds=2 * rounds, steps=3)
    rates = {f"{name}_images_per_s": _BATCH / took for name, took in seconds.items()}
    if part == "overhead":
        tell("trainer over a plain loop", seconds["cached"] / seconds["plain"], "x", "at most 1.02", **rates)
        return
    whom = "ready tensors" if part == "folder" else "timm's loop"
    for name, target in (("jpeg", "0.94"), ("cached", "0.97")):
        target = target if part == "folder" else "1.0"
        tell(f"from {name} over {whom}", seconds["peer"] / seconds[name], "x", target, **rates)


def _check(place: Path, tell: Any) -> None:
    from benchmarks._pipeline import photographs
    from engine.config.schema import Data
    from engine.tasks.images.data import load_data

    root = photographs(place / "many", 10_000, (32, 32))
    time.sleep(2.5)  # younger files are looked at again
    settings, took = Data(kind="folder", root=root, img_size=128), []
    for _ in range(6):
        began = time.perf_counter()
        load_data(settings, 0, cache=place / "checked")
        took.append(time.perf_counter() - began)
    tell("check of 10,000 unchanged images", statistics.median(took[1:]), "s", "well under 1", first_s=took[0])


def _start(root: Path, place: Path, tell: Any) -> None:
    words = ["train", "data=folder", f"data.root={root}", "data.img_size=128", "--workspace", str(place / "start")]
    took = []
    for _ in range(6):
        began = time.time()
        done = subprocess.run([sys.executable, "-c", _FIRST_STEP, *words], stdout=subprocess.PIPE, check=True)
        took.append(float(done.stdout.split(b"\n")[-1]) - began)
    tell("command to first step, litecnn", statistics.median(took[1:]), "s", "under 5", first_s=took[0])


def _digits(place: Path, seeds: list[str], tell: Any) -> None:
    runs = [_train(place / "digits", f"training.seed={seed}") for seed in seeds]
    for seed, run in zip(seeds, runs, strict=True):
        tell(f"digits, seed {seed}", run["accuracy"], "accuracy", "under 60 s", seconds_s=run["seconds_s"])
    tell("digits, mean", statistics.mean(run["accuracy"] for run in runs), "accuracy", "0.98")


def _clothing(place: Path, root: Path, epochs: int | None, tell: Any) -> None:
    words = ["data=folder", f"data.root={root}", "data.img_size=128"]
    run = _train(place / "clothing", *words, *([f"training.epochs={epochs}"] if epochs else []))
    tell("clothing, litecnn, 128 px", run.pop("accuracy"), "accuracy", "0.80 within 900 s", **run)


def _train(workspace: Path, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace), "train", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} failed: {done.stderr.strip().splitlines()[-1]}")
    result = json.loads(done.stdout)
    figures = {name: result["best"][name] for name in ("accuracy", "f1_macro", "epoch")}
    return figures | {name: result[name] for name in ("epochs", "seconds_s", "samples_per_s", "peak_memory_bytes")}


if __name__ == "__main__":
    main()
