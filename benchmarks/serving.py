"""Serving: `/predict` against a bare Starlette + ONNX Runtime app, and swaps under load.

`python -m benchmarks.serving [--json] [--rounds N] [--seconds S] [--swaps N] [--only throughput|swaps]`

Throughput wants `wrk` (`apt install wrk`). Runs of ours and of the peers take turns, so that what else
the machine does falls on all alike; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from engine.config import load_settings
from engine.release.bundle import Release
from engine.release.control import follow, prepare
from engine.release.slots import write_pointer
from engine.store.workspace import Workspace

SIZE, CLASSES, CONNECTIONS = 224, 17, 8
PROJECT = Path(__file__).resolve().parents[1]
PEERS = {  # name: ORT threads, pool threads
    "starlette, ORT 1": (1, 40),
    "starlette, ORT 2": (2, 40),
    "starlette, ORT 1, pool 2": (1, 2),
}
_LUA = """
local bodies, count, turn = {}, %d, 0
for i = 0, count - 1 do
  local file = io.open("%s/" .. i .. ".jpg", "rb"); bodies[i] = file:read("*a"); file:close()
end
request = function()
  turn = (turn + 1) %% count
  return wrk.format("POST", "/predict", {["Content-Type"] = "image/jpeg"}, bodies[turn])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format('{"rps": %%f, "p50_ms": %%f, "p99_ms": %%f, "errors": %%d}',
    summary.requests * 1e6 / summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def make_releases(workspace: Workspace) -> list[Release]:
    """Two releases of litecnn_pro with different weights and class names, admitted as any checkpoint is."""
    import torch

    from engine.release.admit import admit
    from engine.tasks.images.models import build_model
    from engine.tasks.images.preprocess import Preprocess

    settings = load_settings(workspace=workspace.root).settings
    preprocess = Preprocess(SIZE, "crop", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).to_dict()
    releases = []
    for seed, prefix in enumerate("ab"):
        torch.manual_seed(seed)
        net = build_model("litecnn_pro", CLASSES)
        card = {
            "format": 1, "task": "images", "architecture": {"name": "litecnn_pro", "settings": {}},
            "classes": [f"{prefix}{index:02}" for index in range(CLASSES)], "preprocess": preprocess,
            "cycle": seed + 1, "step": 1, "f1_macro": 0.5, "run": "0001", "seed": seed,
            "data": {"fingerprint": "0" * 64, "train": 1, "val": 1}, "saved_at": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        path = workspace.root / f"{prefix}.pth"
        state = {
            "model_state_dict": net.state_dict(),
            "epoch": 1,
            "accuracy": 0.5,
            "loss": 1.0,
            "understudy": card,
        }
        torch.save(state, path)
        releases.append(admit(workspace, settings, path, name=path.name, cycle=seed + 1, expect_classes=None))
    return releases


def make_images(folder: Path, count: int = 8) -> list[bytes]:
    """JPEGs of 640x480 with the detail of a photograph (about 60 KB each), also written to `folder`."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    found = []
    for index in range(count):
        layers = np.zeros((480, 640, 3), np.float32)
        for cell, strength in ((160, 60), (40, 40), (8, 20), (2, 12)):
            small = random.normal(0, strength, (480 // cell, 640 // cell, 3)).astype(np.float32)
            planes = [Image.fromarray(small[..., channel]).resize((640, 480), 3) for channel in range(3)]
            layers += np.stack([np.asarray(plane) for plane in planes], -1)
        stream = io.BytesIO()
        Image.fromarray(np.clip(layers + 128, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
        (folder / f"{index}.jpg").write_bytes(found[-1])
    return found


@contextmanager
def running(port: int, path: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, ready when `path` answers below 500 (404 and 405 count: it listens)."""
    words = tempfile.TemporaryFile()  # noqa: SIM115 - the child writes to it as long as it lives
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=PROJECT, stdout=words, stderr=words)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() > deadline:
                words.seek(0)
                raise SystemExit(f"{' '.join(command)} did not start: {words.read().decode()[-500:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def slot(workspace: Workspace, port: int) -> Any:
    words = ("--workspace", str(workspace.root), "serve", "tobe", f"servers.tobe.port={port}")
    return running(port, "/health/ready", "engine", *words)


def throughput(
    workspace: Workspace, release: Release, folder: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Requests a second and latencies of our slot and of each peer, and ours over the best peer's."""
    script = folder / "post.lua"
    script.write_text(_LUA % (len(list(folder.glob("*.jpg"))), folder))
    figures: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        ports = {"understudy": _free_port()}
        stack.enter_context(slot(workspace, ports["understudy"]))
        for name, (ort_threads, pool) in PEERS.items():
            ports[name] = _free_port()
            words = (str(release.path), str(ports[name]), str(ort_threads), str(pool))
            stack.enter_context(running(ports[name], "/predict", "benchmarks.peers.bare_starlette", *words))
        for turn in range(-1, rounds):
            for name, port in ports.items():
                found = _wrk(port, script, seconds if turn >= 0 else 1)
                if turn >= 0:
                    figures.setdefault(name, []).append(found)
    results: list[dict[str, Any]] = []
    for name, runs in figures.items():
        median = {
            key: round(statistics.median(run[key] for run in runs), 2) for key in ("rps", "p50_ms", "p99_ms")
        }
        results.append({"what": name, **median, "errors": int(sum(run["errors"] for run in runs))})
    best = max(result["rps"] for result in results[1:3])
    for result in results:
        result["ours_over_this"] = round(results[0]["rps"] / result["rps"], 3)
    results[0]["ours_over_this"] = None
    results.append(
        {"what": "ratio to the better of ORT 1 and 2 (target 0.9)", "value": round(results[0]["rps"] / best, 3)}
    )
    return results


def _wrk(port: int, script: Path, seconds: float) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


class Clients:
    """Connections that ask without a pause, over raw sockets; every answer is kept."""

    def __init__(self, port: int, images: list[bytes]) -> None:
        self._port = port
        self._requests = [
            b"POST /predict HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(one) + one
            for one in images
        ]
        self.answers: list[tuple[float, float, int, str, str]] = []  # begun, seconds, status, release, label
        self.stopped = False

    async def run(self) -> None:
        await asyncio.gather(*(self._one(index) for index in range(CONNECTIONS)))

    async def _one(self, index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self.stopped:
            index += 1
            begun = time.perf_counter()
            try:
                writer.write(self._requests[index % len(self._requests)])
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                found = json.loads(await reader.readexactly(length))
                status, release, label = int(head.split()[1]), found.get("release", ""), found.get("label", "")
            except (OSError, EOFError, ValueError, IndexError) as error:
                status, release, label = 0, "", repr(error)
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self.answers.append((begun, time.perf_counter() - begun, status, release, label))
        writer.close()


async def swaps(
    workspace: Workspace, releases: list[Release], images: list[bytes], count: int, seconds: float
) -> list[dict[str, Any]]:
    """Swap between two releases again and again under load; the failed requests and the latencies."""
    port = _free_port()
    with slot(workspace, port):
        clients = Clients(port, images)
        work = asyncio.create_task(clients.run())
        await asyncio.sleep(1 + seconds)
        steady = [took for begun, took, *_ in clients.answers if begun > clients.answers[0][0] + 1]
        windows, lengths, switches = [], [], []
        for turn in range(count):
            release = releases[(turn + 1) % 2]
            begun = time.perf_counter()
            await asyncio.to_thread(prepare, workspace, "tobe", release.id)
            switching = time.perf_counter()
            write_pointer(workspace, "tobe", release, f"bench-{turn}")
            await asyncio.to_thread(follow, workspace, "tobe")
            ended = time.perf_counter()
            windows.append((begun, ended + 0.1))
            lengths.append(ended - begun)
            switches.append(ended - switching)
            await asyncio.sleep(0.3)
        clients.stopped = True
        await work
    during = [took for begun, took, *_ in clients.answers if any(start <= begun <= end for start, end in windows)]
    prefixes = {release.id: prefix for release, prefix in zip(releases, "ab", strict=True)}
    failed = [answer for answer in clients.answers if answer[2] != 200]
    mixed = [one for one in clients.answers if one[2] == 200 and not one[4].startswith(prefixes.get(one[3], "?"))]
    for answer in failed[:3]:
        print(f"failed: {answer}", file=sys.stderr)
    return [
        {"what": f"{count} swaps under load: failed requests (target 0)", "value": len(failed)},
        {"what": "answers not wholly of one release (target 0)", "value": len(mixed)},
        {"what": "requests answered", "value": len(clients.answers)},
        {"what": "swap, prepare to followed, median s", "value": round(statistics.median(lengths), 3)},
        {"what": "swap, pointer to followed, median s", "value": round(statistics.median(switches), 3)},
        {"what": "steady", "p50_ms": _ms(steady, 0.5), "p99_ms": _ms(steady, 0.99)},
        {"what": "during swaps", "p50_ms": _ms(during, 0.5), "p99_ms": _ms(during, 0.99)},
    ]


def _ms(seconds: list[float], fraction: float) -> float:
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(fraction * len(ordered)))], 2)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--swaps", type=int, default=40)
    parser.add_argument("--only", choices=("throughput", "swaps"))
    options = parser.parse_args(argv)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        workspace = Workspace(folder / "workspace")
        workspace.root.mkdir()
        images = make_images(folder)
        releases = make_releases(workspace)
        write_pointer(workspace, "tobe", releases[0], "bench")
        if options.only != "swaps":
            if shutil.which("wrk"):
                results += throughput(workspace, releases[0], folder, options.rounds, options.seconds)
            else:
                print("throughput is left out: there is no wrk (apt install wrk)", file=sys.stderr)
        if options.only != "throughput":
            results += asyncio.run(swaps(workspace, releases, images, options.swaps, options.seconds))
    load = os.getloadavg()[0]
    results.append({"what": f"{os.cpu_count()} cores, load {load:.1f} at the end"})
    if options.json:
        print(json.dumps({"results": results}))
        return
    for result in results:
        figures = "  ".join(
            f"{key} {value}" for key, value in result.items() if key != "what" and value is not None
        )
        print(f"{result['what']:<58} {figures}")


if __name__ == "__main__":
    main()
