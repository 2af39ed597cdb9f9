"""What exporting gives: size, speed, accuracy, and the time that it takes.

    python -m benchmarks.export [--json] [--what speed,slim,accuracy,pruned] [--cifar TAR] [--work DIR] [words...]
    python -m benchmarks.export --what accuracy --checkpoint C --held-out DIR --calibration DIR

`speed`: resnet34 and litecnn_pro at 224 px on one thread: INT8 against fp32 ONNX Runtime and torch eager in the same
run, and `slim`: resnet34 with 30 % of its channels taken out, then INT8. Weights are drawn, for no figure here depends
on them. `accuracy` trains a net on 5,600 of the 10,000 labelled pictures of `--cifar` (a tar of class folders) and
exports it judged on the other 4,400; `pruned` prunes and fine-tunes that net, then INT8. Trainings are kept in
`--work` and go on where they stood. Words such as `training.epochs=40` go to the training. `--checkpoint` is a net of
your own, judged on the pictures of `--held-out`, its ranges measured on those of `--calibration`.

Targets: INT8 resnet34 3x and 3.9x smaller than fp32 ONNX Runtime, 5x than eager; litecnn_pro 1.9x and 3.6x; pruned
5x. INT8 loses at most 0.5 points, pruned at most 1. fp32 agrees to 1e-4. Export with proof within 60 s.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

DRAWN = ("export.max_loss=0.99",)  # nothing is to be mended in weights that were drawn
TRAINING = ("data=folder", "data.val_fraction=0.1", "training=from_scratch", "training.epochs=30",
            "training.batch_size=64", "training.save_every_steps=200")  # fmt: skip
HELD_OUT = 4400
SIDE = 224


class Net(NamedTuple):
    """A trained net: its checkpoint, the class folders that judge it, those that it was trained on."""

    checkpoint: Path
    held_out: Path
    calibration: Path


def main(argv: list[str] | None = None) -> None:
    """Measure, print a line for each figure, and with --json one object `{"results": [...]}`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--what", default="speed,slim", help="speed, slim, accuracy, pruned (default: %(default)s)"
    )
    parser.add_argument("--cifar", type=Path, metavar="TAR", help="labelled pictures in class folders, as a tar")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the trained net is kept")
    parser.add_argument("--model", default="resnet34", help="trained for accuracy and pruned (default: resnet34)")
    parser.add_argument("--side", type=int, default=32, help="pixels that it is trained at (default: 32)")
    parser.add_argument("--checkpoint", type=Path, metavar="C", help="a net that is trained already")
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="class folders that judge --checkpoint")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="class folders that it was trained on")
    parser.add_argument("words", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args(argv)
    what = set(arguments.what.split(","))
    if unknown := what - {"speed", "slim", "accuracy", "pruned"}:
        parser.error(f"unknown part {', '.join(sorted(unknown))}")
    own = (arguments.checkpoint, arguments.held_out, arguments.calibration)
    if what & {"accuracy", "pruned"} and not (all(own) or (arguments.cifar and arguments.work)):
        parser.error("accuracy and pruned need --cifar and --work, or --checkpoint, --held-out and --calibration")
    results: list[dict[str, Any]] = []

    def found(name: str, value: float, target: float, *, most: bool = False, note: str = "") -> None:
        results.append({"name": name, "value": round(value, 7), "target": target,
                        "reached": value <= target if most else value >= target, "note": note})  # fmt: skip
        print(
            f"{name:<50} {value:>10.5g}  ({'at most' if most else 'at least'} {target:g}"
            f"{'' if results[-1]['reached'] else ', MISSED'})  {note}",
            file=sys.stderr if arguments.json else sys.stdout,
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        if what & {"speed", "slim"}:
            _pictures(Path(folder) / "pictures")
        if "speed" in what:
            for model, faster, smaller, eager in (("resnet34", 3.0, 3.9, 5.0), ("litecnn_pro", 1.9, 3.6, 0.0)):
                _speed(Path(folder), model, faster, smaller, eager, found)
        if "slim" in what:
            _slim(Path(folder), found)
        if what & {"accuracy", "pruned"}:
            work, name = arguments.work or Path(folder), arguments.model
            if all(own):
                net, name = Net(*own), arguments.checkpoint.stem
            else:
                net = _trained(work, arguments.cifar, name, arguments.side, arguments.words)
            if "accuracy" in what:
                _judged(work, net, f"{name} int8", (), 0.5, found)
            if "pruned" in what:
                words = ("export.pruning=true", "export.sparsity=0.3", *arguments.words)
                _judged(work, net, f"{name} pruned int8", words, 1.0, found)
    if arguments.json:
        print(json.dumps({"results": results}))


def _speed(folder: Path, model: str, faster: float, smaller: float, eager: float, found: Any) -> None:
    report, seconds = _drawn(folder, model, "--format", "onnx", "--format", "torchscript", "--format", "int8")
    rows = {row["format"]: row for row in report["artifacts"]}
    int8, host = rows["int8"], report["host"]
    fp32, torch = report["original"]["onnx"], report["original"]["torch"]
    where = f"{host['cpu']}, {', '.join(host['features'])}; {host['threads']} thread"
    for size in ("1", "8"):
        ratio = fp32[size]["p50"] / int8["latency"][size]["p50"]
        note = f"{fp32[size]['p50']} -> {int8['latency'][size]['p50']} ms; {where}"
        found(f"{model} int8 over fp32 ONNX Runtime, batch {size}", ratio, faster, note=note)
    if eager:
        note = f"eager {torch['1']['p50']} ms"
        found(f"{model} int8 over torch eager, batch 1", int8["speedup"], eager, note=note)
    note = f"{report['original']['bytes']:,} -> {int8['bytes']:,} bytes"
    found(f"{model} int8 smaller than fp32", int8["size_ratio"], smaller, note=note)
    error = max(rows[kind]["max_abs_error"] for kind in ("onnx", "torchscript"))
    found(f"{model} fp32 formats: largest error", error, 1e-4, most=True)
    found(f"{model} export with proof, seconds", seconds, 60, most=True)


def _slim(folder: Path, found: Any) -> None:
    words = ("export.pruning=true", "export.sparsity=0.3", "export.finetune_epochs=0")
    report, _ = _drawn(folder, "resnet34", "--format", "int8", *words)
    int8, fp32 = report["artifacts"][0], report["original"]["onnx"]
    before, after = report["made_smaller"]["parameters"]
    for size in ("1", "8"):
        note = f"{fp32[size]['p50']} -> {int8['latency'][size]['p50']} ms; {before:,} -> {after:,} parameters"
        ratio = fp32[size]["p50"] / int8["latency"][size]["p50"]
        found(f"resnet34 pruned int8 over fp32 ONNX Runtime, batch {size}", ratio, 5.0, note=note)


def _judged(work: Path, net: Net, name: str, words: Sequence[str], points: float, found: Any) -> None:
    output = work / name.replace(" ", "-")
    report = _engine(work / "workspace", "export", "--checkpoint", str(net.checkpoint), "--output-dir",
                     str(output), "--format", "onnx", "--format", "int8", "--data", str(net.held_out), "--images",
                     str(HELD_OUT), "--calibration", str(net.calibration), *words)  # fmt: skip
    int8 = next(row for row in report["artifacts"] if row["format"] == "int8")
    judged, original = int8["judged"], report["original"]["judged"]
    low, high = (100 * bound for bound in judged["difference_ci95"])
    note = (
        f"{original['accuracy']:.2%} -> {judged['accuracy']:.2%} on {judged['n']:,}, interval {low:+.2f} to"
        f" {high:+.2f} points; {len(int8['kept_fp32'])} layers in fp32; {int8['speedup_onnx']:.2f}x, at this size"
    )
    found(f"{name}: points lost", -100 * judged["difference"], points, most=True, note=note)


def _trained(work: Path, tar: Path, model: str, side: int, words: Sequence[str]) -> Net:
    """A net trained in `work`, from where its training stands."""
    work = work.absolute()
    if not (work / "held_out").is_dir():
        _unpack(tar, work)
    kept = work / f"trained-{model}-{side}.json"
    if kept.exists():
        return Net(Path(json.loads(kept.read_text())["checkpoint"]), work / "held_out", work / "train")
    workspace = work / "workspace"
    begun = [run for run in _engine(workspace, "runs")["runs"] if run["status"] != "completed"]
    if begun:
        words = ("--resume", begun[0]["run"])
    else:
        words = (f"model={model}", *TRAINING, f"data.root={work / 'train'}", f"data.img_size={side}", *words)
    result = _engine(workspace, "train", *words)
    kept.write_text(json.dumps(result))
    return Net(Path(result["checkpoint"]), work / "held_out", work / "train")


def _unpack(tar: Path, work: Path) -> None:
    """Class folders in two halves by the hash of each picture's name: `HELD_OUT` of them judge."""
    scratch = work / "unpacked"
    with tarfile.open(tar) as archive:
        archive.extractall(scratch, filter="data")
    pictures = sorted(path.relative_to(scratch) for path in scratch.glob("*/*"))
    drawn = sorted(pictures, key=lambda path: hashlib.sha256(path.as_posix().encode()).digest())
    for part, chosen in (("train", drawn[HELD_OUT:]), ("held_out.part", drawn[:HELD_OUT])):
        for path in chosen:
            (work / part / path).parent.mkdir(parents=True, exist_ok=True)
            (scratch / path).rename(work / part / path)
    (work / "held_out.part").rename(work / "held_out")


def _drawn(folder: Path, model: str, *words: str) -> tuple[dict[str, Any], float]:
    """The report of an export of drawn weights, and its seconds."""
    path, began = _checkpoint(folder, model), time.monotonic()
    report = _engine(folder / "workspace", "export", "--checkpoint", str(path), "--output-dir",
                     str(folder / f"{model}-{len(words)}"), "--data", str(folder / "pictures"), "--images", "32",
                     "--threads", "1", "--allow-worse", *DRAWN, *words)  # fmt: skip
    return report, time.monotonic() - began


def _checkpoint(folder: Path, model: str) -> Path:
    import torch

    from engine.checkpoints.files import CARD, save_checkpoint_file
    from engine.tasks.images.models import build_model

    path = folder / f"{model}.pth"
    if path.exists():
        return path
    torch.manual_seed(0)
    net = build_model(model, 10)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # no branch is to begin as nothing
                module.weight.uniform_(0.5, 1)
                module.running_var.uniform_(0.5, 2)
    preprocess = {"img_size": SIDE, "resize": "crop", "mean": [0.5] * 3, "std": [0.25] * 3}
    card = {"format": 1, "task": "images", "architecture": {"name": model, "settings": {}},
            "classes": list("0123456789"), "preprocess": preprocess, "cycle": 1, "run": None}  # fmt: skip
    save_checkpoint_file(path, {"model_state_dict": net.state_dict(), "epoch": 1, CARD: card})
    return path


def _pictures(folder: Path, count: int = 64) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (14, 14, 3), np.uint8))
        path = folder / str(index % 10) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def _engine(workspace: Path, verb: str, *words: str) -> dict[str, Any]:
    """A verb's JSON object; what it says on the way goes to standard error."""
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace), verb, *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{verb} {' '.join(words)} failed with exit code {done.returncode}")
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


if __name__ == "__main__":
    main()
