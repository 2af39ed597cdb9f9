"""Serving against its peers: throughput and latency, overload, swaps under load, start and memory.

`python -m benchmarks.serving [--json] [--only PART ...] [--connections N ...] [--rounds N] [--seconds S]
[--swaps N] [--folder DIR]`, PART one of `throughput`, `overload`, `swaps`, `start`.

Throughput wants `wrk` (`apt install wrk`) and LitServe (`pip install -e .[peers]`); what is missing is said and
left out. Ours and the peers are asked in turns, the others stopped meanwhile; figures are medians over the
rounds in which nobody else worked. All use our decoder and the same ONNX file. `limit` is decoding and ONNX Runtime on every core without
HTTP. `--folder` keeps the releases that are made (20 s) for the next call.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.loads import Clients, Probes, has_wrk, make_images, percentile_ms, wrk, wrk_command
from benchmarks.servers import PROJECT, Foreign, Running, free_port, machine, running, slot
from engine.config import load_settings
from engine.release.bundle import Release, read_release
from engine.release.control import follow, prepare
from engine.release.slots import write_pointer
from engine.store.workspace import Workspace

SIZE, CLASSES = 224, 17
PARTS = ("throughput", "overload", "swaps", "start")
BARE = {"bare, ORT 1": (1, 40), "bare, ORT 2": (2, 40)}  # ORT threads, pool threads
LITSERVE = {  # workers, ORT threads, queue, batch
    "litserve 2x1 mp": (2, 1, "mp", 1),
    "litserve 2x1 zmq": (2, 1, "zmq", 1),
    "litserve 1x2 zmq": (1, 2, "zmq", 1),
    "litserve 1x2 zmq, batch 4": (1, 2, "zmq", 4),
}
Result = dict[str, Any]
_FOREIGN = 0.08  # a round in which others took more of the processors is not counted, where enough are left


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


def throughput(
    workspace: Workspace, release: Release, folder: Path, connections: int, rounds: int, seconds: int
) -> list[Result]:
    """Requests a second and latencies of our slot and of each peer, and the ratios that are promised."""
    runs: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        servers = {"understudy": stack.enter_context(slot(workspace, free_port()))}
        time.sleep(2)  # its spare worker
        for name, words in BARE.items():
            servers[name] = stack.enter_context(_peer("bare_starlette", release, *words))
        _only(servers, None)
        if importlib.util.find_spec("litserve"):
            name, server = _best_litserve(stack, release, folder, connections)
            servers[name] = server
        else:
            print("LitServe is left out: it is not installed (pip install -e .[peers])", file=sys.stderr)
        limit = _limit(release, folder)
        stack.callback(limit.kill)
        for turn in range(-1, rounds):
            length = seconds if turn >= 0 else 1
            for name, server in servers.items():
                _only(servers, name)
                with Foreign(server.processor_s) as foreign:
                    found = wrk(server.port, folder, connections, length)
                found["cpu_ms"] = 1000 * foreign.own_s / (found["rps"] * length)
                runs.setdefault(name, []).append(found | {"foreign": foreign.share})
            _only(servers, None)
            with Foreign(Running(limit, 0, 0).processor_s) as foreign:
                rate = _ask_limit(limit, length)
            runs.setdefault("limit", []).append({"rps": rate, "foreign": foreign.share})
        for found_runs in runs.values():
            del found_runs[0]  # the round in which all warm up
        memory = {name: server.memory_bytes() for name, server in servers.items()}
    quiet = [turn for turn in range(rounds) if all(found[turn]["foreign"] < _FOREIGN for found in runs.values())]
    used = quiet if len(quiet) >= 3 else list(range(rounds))
    results: list[Result] = [{"what": f"rounds without another's work, of {rounds}", "value": len(quiet)}]
    for name, found_runs in runs.items():
        median = {
            key: round(statistics.median(found_runs[turn][key] for turn in used), 2) for key in found_runs[0]
        }
        result: Result = {"what": f"{name}, {connections} connections", **median}
        if name in memory:
            result["memory_mb"] = round(memory[name] / 1e6)
        results.append(result)
    rates = {name: [found_runs[turn]["rps"] for turn in used] for name, found_runs in runs.items()}
    best = max(BARE, key=lambda name: statistics.median(rates[name]))
    rivals = {f"best bare ({best})": best, "limit": "limit"}
    rivals |= {name: name for name in rates if name.startswith("litserve")}
    for title, name in rivals.items():
        # Round by round, then the median: what else the machine does falls on both sides of a quotient.
        ratio = statistics.median(
            ours / theirs for ours, theirs in zip(rates["understudy"], rates[name], strict=True)
        )
        results.append({"what": f"understudy / {title}, {connections} connections", "value": round(ratio, 3)})
    return results


def _peer(module: str, release: Release, *words: object) -> Any:
    port = free_port()
    command = [f"benchmarks.peers.{module}", str(release.path), str(port), *map(str, words)]
    return running(port, "/predict", *command)


def _only(servers: dict[str, Running], chosen: str | None) -> None:
    for name, server in servers.items():
        if name == chosen:
            server.go_on()
        else:
            server.pause()


def _best_litserve(stack: ExitStack, release: Release, folder: Path, connections: int) -> tuple[str, Running]:
    """The configuration that answers most, left running."""
    rates: dict[str, float] = {}
    for name, words in LITSERVE.items():
        with _peer("litserve_app", release, *words) as server:
            wrk(server.port, folder, connections, 1)
            rates[name] = wrk(server.port, folder, connections, 2)["rps"]
    best = max(rates, key=lambda name: rates[name])
    print("LitServe: " + ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items()), file=sys.stderr)
    return best, stack.enter_context(_peer("litserve_app", release, *LITSERVE[best]))


def _limit(release: Release, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peers.limit", str(release.path), str(folder)],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _ask_limit(process: subprocess.Popen[str], seconds: float) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seconds}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def overload(workspace: Workspace, folder: Path, image: bytes, seconds: int) -> list[Result]:
    """Ten times the load that the slot can carry: how fast it refuses, how fast the accepted are answered."""
    results: list[Result] = []
    with slot(workspace, free_port()) as server:
        time.sleep(2)
        capacity = wrk(server.port, folder, 8, 3)["rps"]
        flood = {
            "steady, 8 connections": (8, 0),
            "steady, 32 connections": (32, 0),
            "ten times the load": (320, round(320 / (10 * capacity) * 1000)),
        }
        for what, (connections, pause_ms) in flood.items():
            command = wrk_command(server.port, folder, connections, seconds + 1, pause_ms)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                time.sleep(0.7)
                with Probes(server.port, image) as probes:
                    time.sleep(seconds - 0.3)
                offered = json.loads(process.communicate()[0].splitlines()[-1])["rps"]
            good, refused = probes.seconds(200), probes.seconds(503)
            results.append({
                "what": what, "offered_rps": round(offered), "accepted": len(good),
                "p50_ms": percentile_ms(good, 0.5), "p99_ms": percentile_ms(good, 0.99),
                "refused": len(refused), "refused_p50_ms": percentile_ms(refused, 0.5),
                "refused_p99_ms": percentile_ms(refused, 0.99),
            })  # fmt: skip
    worst = results[2]["p99_ms"]
    for steady in results[:2]:
        if worst and steady["p99_ms"]:
            ratio = round(worst / steady["p99_ms"], 2)
            results.append({"what": f"accepted p99 / {steady['what']} p99 (target 3)", "value": ratio})
    return results


async def swaps(
    workspace: Workspace,
    releases: list[Release],
    images: list[bytes],
    connections: int,
    count: int,
    seconds: float,
) -> list[Result]:
    """Swap between two releases again and again under load; the failed requests and the latencies."""
    write_pointer(workspace, "tobe", releases[0], "bench")
    port = free_port()
    with slot(workspace, port):
        clients = Clients(port, images, connections)
        work = asyncio.create_task(clients.run())
        await asyncio.sleep(2.5 + seconds)
        steady = [took for begun, took, *_ in clients.answers if begun > clients.answers[0][0] + 2.5]
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
        {
            "what": f"{count} swaps with {connections} connections: failed requests (target 0)",
            "value": len(failed),
        },
        {"what": "answers not wholly of one release (target 0)", "value": len(mixed)},
        {"what": "requests answered", "value": len(clients.answers)},
        {"what": "swap, prepare to followed, median s", "value": round(statistics.median(lengths), 3)},
        {"what": "swap, pointer to followed, median s", "value": round(statistics.median(switches), 3)},
        {"what": "steady", "p50_ms": percentile_ms(steady, 0.5), "p99_ms": percentile_ms(steady, 0.99)},
        {"what": "during swaps", "p50_ms": percentile_ms(during, 0.5), "p99_ms": percentile_ms(during, 0.99)},
    ]


def start(workspace: Workspace, image: bytes) -> list[Result]:
    """From the process's start to its first good answer, cold and again; memory before and after huge requests."""
    import httpx

    results: list[Result] = []
    ready = []
    for _ in range(5):
        with slot(workspace, free_port()) as server:
            ready.append(server.ready_s)
    results.append({"what": "server ready, median of 5 s (target 2)", "value": round(statistics.median(ready), 2)})
    with slot(workspace, free_port()) as server:
        time.sleep(2.5)
        url = f"http://127.0.0.1:{server.port}"
        with httpx.Client(base_url=url, timeout=60) as http:
            for _ in range(50):
                http.post("/predict", content=image).raise_for_status()
            results.append(
                {"what": "memory of a slot, MB (target 350)", "value": round(server.memory_bytes() / 1e6)}
            )
            for content in _huge_requests():
                found = http.post(content[0], content=content[1])
                print(f"{content[0]} {len(content[1]) / 1e6:.1f} MB: {found.status_code}", file=sys.stderr)
            time.sleep(0.5)
            results.append({"what": "... after huge requests", "value": round(server.memory_bytes() / 1e6)})
    return results


def _huge_requests() -> list[tuple[str, bytes]]:
    """An image of 49 megapixels, and a JSON tensor of nearly 32 MB."""
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (7000, 7000), (200, 30, 30)).save(stream, "PNG")
    rows = 16
    data = ",".join(["0.123456"] * (rows * 3 * SIZE * SIZE))
    tensor = f'{{"inputs": [{{"name": "image", "datatype": "FP32", "shape": [{rows}, 3, {SIZE}, {SIZE}], "data": [{data}]}}]}}'
    return [("/predict", stream.getvalue()), ("/v2/models/understudy/infer", tensor.encode())] * 2


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--connections", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="whole seconds: wrk takes no others")
    parser.add_argument("--swaps", type=int, default=40)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(argv)
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        workspace = Workspace(folder / "workspace")
        workspace.root.mkdir(parents=True, exist_ok=True)
        images = make_images(folder)
        releases = _releases(workspace)
        write_pointer(workspace, "tobe", releases[0], "bench")
        if not has_wrk():
            print("throughput and overload are left out: there is no wrk (apt install wrk)", file=sys.stderr)
        else:
            for connections in options.connections if "throughput" in options.only else ():
                results += throughput(workspace, releases[0], folder, connections, options.rounds, options.seconds)
            if "overload" in options.only:
                results += overload(workspace, folder, images[0], max(8, options.seconds))
        if "swaps" in options.only:
            results += asyncio.run(swaps(workspace, releases, images, 8, options.swaps, max(4.0, options.seconds)))
        if "start" in options.only:
            results += start(workspace, images[0])
    results.append({"what": machine()})
    if options.json:
        print(json.dumps({"results": results}))
        return
    for result in results:
        figures = "  ".join(
            f"{key} {value}" for key, value in result.items() if key != "what" and value is not None
        )
        print(f"{result['what']:<58} {figures}")


def _releases(workspace: Workspace) -> list[Release]:
    """Those that an earlier call left in the folder, else new ones."""
    found = [read_release(path) for path in workspace.releases.glob("*.release")]
    found.sort(key=lambda release: release.manifest.classes)
    return found if len(found) == 2 else make_releases(workspace)


if __name__ == "__main__":
    main()
