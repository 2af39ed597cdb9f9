"""A sweep of 8 short runs: our own child processes beside tasks of a Ray cluster on the same machine, same parallelism.

They take turns: Ray tasks of a cluster that stands already, of one that is started for the command, our own children
last, so that warm files help those. A last sweep has its busiest worker killed in the middle: it must complete, and lose one step at most.

    python -m benchmarks.cluster [--epochs 4] [--jobs 2] [--skip-kill]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parents[1]
RUNS = 8
SETTLED_S = 20


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--skip-kill", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="understudy-cluster-") as name:
        common = [
            f"training.epochs={options.epochs}",
            "data.img_size=16",
            "--device",
            "cpu",
            "--jobs",
            str(options.jobs),
        ]
        grid = f"training.seed=range(0,{RUNS})"
        with standing_cluster(Path(name)) as address:
            joined = sweep(Path(name) / "joined", [grid, *common, f"cluster.address={address}"])
        started = sweep(Path(name) / "started", [grid, *common, "cluster.address=auto"])
        own = sweep(Path(name) / "own", [grid, *common])
        print(f"{RUNS} runs of {options.epochs} epochs, {options.jobs} at once")
        print(f"{'our own children':<40} {own['seconds_s']:5.1f} s, trainings {own['sweep_s']:5.1f} s")
        for label, ray in (("on a Ray cluster that stands", joined), ("with Ray's start", started)):
            whole, trainings = (ray[key] / own[key] - 1 for key in ("seconds_s", "sweep_s"))
            print(
                f"{label:<40} {ray['seconds_s']:5.1f} s, trainings {ray['sweep_s']:5.1f} s: {whole:+.1%}, {trainings:+.1%}"
            )
        same = weights(Path(name) / "joined") == weights(Path(name) / "started") == weights(Path(name) / "own")
        print(f"best accuracies the same in every run: {same}")
        if not options.skip_kill:
            words = ["training.seed=0,1", "training.epochs=2", "data.img_size=32", *common[2:]]
            print(killed(Path(name) / "kill", [*words, "cluster.address=auto"]))


@contextlib.contextmanager
def standing_cluster(folder: Path) -> Iterator[str]:
    """The address of a Ray cluster of this machine that is up, on the loopback address and a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    os.environ |= ours
    words = ["start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder / 'ray'}",
             "--include-dashboard=false", f"--num-cpus={len(os.sched_getaffinity(0))}",
             f"--object-store-memory={512 * 1024**2}"]  # fmt: skip
    with (folder / "ray.log").open("w") as log:
        head = subprocess.Popen([Path(sys.executable).with_name("ray"), *words], stdout=log, stderr=log)
        try:
            while "Ray runtime started" not in (folder / "ray.log").read_text():
                if head.poll() is not None:
                    raise SystemExit((folder / "ray.log").read_text())
                time.sleep(0.2)
            time.sleep(SETTLED_S)  # its agents import for a while after it says that it is up
            yield f"127.0.0.1:{port}"
        finally:
            for process in (*psutil.Process(head.pid).children(recursive=True), head):
                process.kill()  # nothing is left to drain
            head.wait()
            for name in ours:
                os.environ.pop(name)


def sweep(workspace: Path, words: list[str]) -> dict[str, Any]:
    """The result of a sweep, with `sweep_s`: from the first training's begin to the last one's end."""
    process = start(workspace, words)
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(err)
    result: dict[str, Any] = json.loads(out)
    assert result["state"] == "completed"
    runs = [json.loads(path.read_text()) for path in workspace.glob("multirun/*/*/*/manifest.json")]
    ends = max(datetime.fromisoformat(run["finished_at"]) for run in runs)
    begins = min(datetime.fromisoformat(run["started_at"]) for run in runs)
    return result | {"sweep_s": (ends - begins).total_seconds()}


def start(workspace: Path, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "engine", "--workspace", str(workspace), "train", "--multirun", "--json", *words],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def weights(workspace: Path) -> list[Any]:
    """Of each run what its best was."""
    found = sorted(workspace.glob("multirun/*/*/*/manifest.json"))
    return [json.loads(path.read_text())["best"] for path in found]


def killed(workspace: Path, words: list[str]) -> str:
    """Kill the Ray worker of run 0 within its first epoch; what that cost, in a sentence."""
    process = start(workspace, words)
    step = 0
    while process.poll() is None and not step:
        time.sleep(0.05)
        for path in workspace.glob("multirun/*/*/0/progress.json"):
            progress, manifest = (
                json.loads(path.read_text()),
                json.loads(path.with_name("manifest.json").read_text()),
            )
            if progress["epoch"] == 1 and 5 < progress["step"] < progress["steps"] - 5:
                step = progress["step"]
                os.kill(psutil.Process(manifest["pid"]).ppid(), signal.SIGKILL)
    out, err = process.communicate()
    log = next(workspace.glob("multirun/*/*/0/train.log")).read_text()
    resumed = re.search(r"resumed at epoch (\d+), step (\d+)", log)
    if process.returncode or not step or not resumed:
        raise SystemExit(f"no worker was killed, or it was not survived\n{err}\n{log}")
    done = json.loads(out)["done"]
    return f"worker of run 0 killed at step {step}: went on at epoch {resumed[1]}, step {resumed[2]}; {done} of 2 runs done"


if __name__ == "__main__":
    main(sys.argv[1:])
