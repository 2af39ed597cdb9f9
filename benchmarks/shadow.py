"""What shadow traffic costs AS-IS's clients: latency with no share, a tenth and all of the requests mirrored.

`python -m benchmarks.shadow [--json] [--rounds N] [--seconds S] [--connections N] [--pause-ms MS] [--folder DIR]`

Both slots serve a 1.9M-parameter net on this machine; every body is a 640x480 JPEG with bytes of its own (a repeated
image is not mirrored twice). The clients pause, so that the machine has room: a share that it has no room for is
passed over, and the line says how much was mirrored. Rounds take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.loads import make_images
from benchmarks.servers import free_port, machine, running
from benchmarks.serving import make_releases
from engine.compare.shadow import read_counts
from engine.release.bundle import Release, read_release
from engine.release.slots import write_pointer
from engine.store.workspace import Workspace

SHARES = (0.0, 0.1, 1.0)
_LUA = """
local bodies, count, turn = {}, %d, 0
for i = 0, count - 1 do
  local file = io.open("%s/" .. i .. ".jpg", "rb"); bodies[i] = file:read("*a"); file:close()
end
delay = function() return math.random(0, 2 * %d) end
request = function()
  turn = turn + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "image/jpeg"}, bodies[turn %% count] .. "%s" .. turn)
end
done = function(summary, latency, requests)
  print(string.format('{"rps": %%f, "p50_ms": %%f, "p99_ms": %%f}',
    summary.requests * 1e6 / summary.duration, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--pause-ms", type=int, default=80)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        results = measure(folder, options)
    if options.json:
        print(json.dumps({"results": results}))
        return
    for result in results:
        print(
            f"share {result['share']:<4g} p50 {result['p50_ms']:6.2f} ms  p99 {result['p99_ms']:6.2f} ms  "
            f"{result['rps']:6.1f} requests/s, {result['mirrored']:,} mirrored, {result['passed_over']:,} passed over"
        )
    print(machine())


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    workspace = Workspace(folder / "workspace")
    releases = _releases(workspace)
    images = folder / "images"
    images.mkdir(exist_ok=True)
    make_images(images)
    for slot, release in zip(("asis", "tobe"), releases, strict=True):
        write_pointer(workspace, slot, release, "benchmark")
    found: dict[float, list[dict[str, float]]] = {share: [] for share in SHARES}
    counts: dict[float, list[int]] = {share: [0, 0] for share in SHARES}
    ports = {slot: free_port() for slot in ("asis", "tobe")}
    with running(ports["tobe"], "/health/ready", "engine", *_words(workspace, "tobe", ports)):
        for number in range(options.rounds):
            for share in SHARES:
                before = read_counts(workspace, releases[0].id, releases[1].id)
                words = _words(workspace, "asis", ports, f"shadow.share={share}")
                with running(ports["asis"], "/health/ready", "engine", *words):
                    _wrk(ports["asis"], images, options, 2, f"warm-{number}-{share}-{time.time()}")
                    tag = f"{number}-{share}-{time.time()}"
                    found[share].append(_wrk(ports["asis"], images, options, options.seconds, tag))
                after = read_counts(workspace, releases[0].id, releases[1].id)
                counts[share][0] += after.mirrored - before.mirrored
                counts[share][1] += after.passed_over - before.passed_over
    return [
        {
            "share": share,
            **{key: statistics.median(one[key] for one in found[share]) for key in ("p50_ms", "p99_ms", "rps")},
            "mirrored": counts[share][0],
            "passed_over": counts[share][1],
        }
        for share in SHARES
    ]


def _releases(workspace: Workspace) -> list[Release]:
    files = sorted(workspace.releases.glob("*.release")) if workspace.releases.is_dir() else []
    return [read_release(path) for path in files] if len(files) == 2 else make_releases(workspace)


def _words(workspace: Workspace, slot: str, ports: dict[str, int], *settings: str) -> list[str]:
    numbers = [f"servers.{name}.port={port}" for name, port in ports.items()]
    return ["--workspace", str(workspace.root), "serve", slot, *numbers, *settings]


def _wrk(port: int, images: Path, options: argparse.Namespace, seconds: int, tag: str) -> dict[str, float]:
    script = images / "shadow.lua"
    script.write_text(_LUA % (len(list(images.glob("*.jpg"))), images, options.pause_ms, tag))
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{seconds}s", "-s", str(script)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main(sys.argv[1:])
