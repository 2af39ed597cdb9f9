"""What the console costs, on a real pseudo-terminal: bytes on the wire, CPU, memory, first paint, keys.

`python -m benchmarks.console [--part NAME ...] [--json] [--seconds S]`; without a part all of them, five minutes.
Recorded figures come from `tests/console/recordings` (two hosts whose devices change at 1 Hz, a training with two
curves, both slots under load); live ones from `engine watch` on a workspace made for it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil

from benchmarks._terminal import Terminal
from benchmarks._workspace import make_workspace
from console.recording import Recording

RECORDINGS = Path(__file__).resolve().parents[1] / "tests" / "console" / "recordings"
EVENING, EMPTY = RECORDINGS / "evening.jsonl", RECORDINGS / "empty.jsonl"
ARROWS = [b"\x1b[B", b"\x1b[B", b"\x1b[A", b"\x1b[A"]
PANES = [b"1", b"2", b"4", b"5", b"3"]
SMALL = {"checkpoints": 20, "runs": 10, "events": 500}
LARGE = {"checkpoints": 10_000, "runs": 1_000, "events": 100_000}
WARM_S = 4.0


@dataclass(frozen=True)
class Figure:
    """One measured figure; `limit` is what it should not exceed, None where it is only told."""

    case: str
    value: float
    unit: str
    limit: float | None = None

    @property
    def ok(self) -> bool:
        return self.limit is None or self.value <= self.limit


def wire(seconds: float) -> Iterator[Figure]:
    """Bytes and CPU with four live curves at 1 Hz, and with nothing that changes."""
    with tempfile.TemporaryDirectory() as folder:
        curves = Path(folder) / "curves.jsonl"
        four_curves(EVENING, curves)
        for width, height, limit in ((120, 40, 5000), (80, 24, 2500)):
            with Terminal(["--replay", str(curves)], width, height) as console:
                console.drain(WARM_S / 2)
                console.press(b"1")  # the devices' curves, where only one pane fits
                console.drain(WARM_S / 2)
                rate, busy = console.watch(seconds)
                yield Figure(f"wire, four live curves, {width}x{height}", rate, "B/s", limit)
                yield Figure(f"CPU, four live curves, {width}x{height}", 100 * busy, "%", 1.5)
                yield Figure(f"memory, four live curves, {width}x{height}", console.rss_mb, "MB", 90)
    with Terminal(["--replay", str(EMPTY)], 120, 40) as console:
        console.drain(WARM_S)
        rate, busy = console.watch(seconds)
        yield Figure("wire, nothing changes", rate, "B/s", 0)
        yield Figure("CPU, nothing changes", 100 * busy, "%", 0.3)


def keys(seconds: float) -> Iterator[Figure]:
    """First paint, arrows and panes, with a live recording."""
    yield Figure(
        "first paint, filled from a recording", 1000 * _paint(["--replay", str(EVENING)], b"a3f9c1e2"), "ms", 400
    )
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder), **SMALL)
        live = ["--workspace", folder]
        yield Figure("first paint, live", 1000 * _paint(live, b"UNDERSTUDY"), "ms", 400)
        yield Figure("filled from a cold engine", 1000 * _paint(live, b"best_model_cycle2"), "ms", 1000)
    with Terminal(["--replay", str(EVENING)], 120, 40) as console:
        console.drain(2)
        yield from _keys(console, "live", 50, 100)


def hang(seconds: float) -> Iterator[Figure]:
    """Keys while the engine, and with it every source, stands still; how soon the console says so; its revival."""
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder), **SMALL)
        with Terminal(["--workspace", folder], 120, 40) as console:
            console.until(b"live")
            console.drain(WARM_S)
            (child,) = console.process.children()
            child.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            console.until(b"stale")
            yield Figure("hang: until the screen says stale", time.monotonic() - stopped, "s", 10)
            yield from _keys(console, "hang", 150, 150, times=20)
            child.send_signal(signal.SIGCONT)
            continued = time.monotonic()
            console.until(b"live")
            yield Figure("hang: until live again", time.monotonic() - continued, "s", 5)


def hour(seconds: float) -> Iterator[Figure]:
    """An hour of recording at 50 times its speed: memory must stay where it is."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "hour.jsonl"
        lengthen(EVENING, recording, 3600)
        with Terminal(["--replay", str(recording), "--speed", "50"], 120, 40) as console:
            console.drain(15)
            early = console.rss_mb
            console.drain(60)
            late = console.rss_mb
    yield Figure("hour at 50x: memory at its end", late, "MB", 90)
    yield Figure("hour at 50x: growth after its first 12 minutes", late - early, "MB", 3)


def seek(seconds: float) -> Iterator[Figure]:
    """A recording of 100 MB: opened, and any moment of it found."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.jsonl"
        size = lengthen(EVENING, path, 3600 * 4.2)
        before, began = psutil.Process().memory_info().rss, time.monotonic()
        recording = Recording(path)
        opened = time.monotonic()
        for share in range(20):
            recording.find(recording.begin + (recording.end - recording.begin) * share / 20)
        found = (time.monotonic() - opened) / 20
        grown = psutil.Process().memory_info().rss - before
        recording.close()
        yield Figure("replay: size of the recording", size / 1e6, "MB")
        yield Figure("replay: opening it", 1000 * (opened - began), "ms", 100)
        yield Figure("replay: finding a moment", 1000 * found, "ms", 100)
        yield Figure("replay: memory for it", grown / 1e6, "MB", 10)
        with Terminal(["--replay", str(path)], 120, 40) as console:
            yield Figure("replay: first paint, filled", 1000 * console.until(b"a3f9c1e2"), "ms", 400)


def feed(seconds: float) -> Iterator[Figure]:
    """The console's child, `engine watch`."""
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder), **SMALL)
        yield from _feed(folder, seconds, "small workspace")


def large(seconds: float) -> Iterator[Figure]:
    """The same with 10,000 checkpoints, 1,000 runs and 100,000 events, live."""
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder), **LARGE)
        for verb in ("checkpoints", "status", "runs", "events", "checkpoints"):
            began = time.monotonic()
            _engine(folder, verb, "--json")
            yield Figure(
                f"large: {verb}{' (second)' if verb == 'checkpoints' else ''}", time.monotonic() - began, "s"
            )
        yield from _feed(folder, seconds, "large workspace")
        live = ["--workspace", folder]
        yield Figure(
            "large: first paint, live, median", 1000 * _paint(live, b"UNDERSTUDY", statistics.median), "ms", 400
        )
        with Terminal(live, 120, 40) as console:
            yield Figure("large: until all 10,000 checkpoints are counted", console.until(b"10000"), "s")
            console.drain(WARM_S)
            thirds = [console.watch(seconds / 3) for _ in range(3)]
            yield Figure("large: wire, median", statistics.median(rate for rate, _busy in thirds), "B/s", 5000)
            yield Figure("large: CPU, median", 100 * statistics.median(busy for _rate, busy in thirds), "%", 1.5)
            yield Figure("large: memory", console.rss_mb, "MB", 90)
            yield from _keys(console, "large", 50, 100)


def _paint(words: list[str], wanted: bytes, of: Callable[[list[float]], float] = min) -> float:
    """Seconds until `wanted` is on the wire, `of` three; the best, for whatever else runs here only makes it longer."""
    found = []
    for _ in range(3):
        with Terminal(words, 120, 40) as console:
            found.append(console.until(wanted))
    return of(found)


def _keys(console: Terminal, case: str, arrow_ms: float, pane_ms: float, times: int = 40) -> Iterator[Figure]:
    console.press(b"3")
    console.drain(0.5)
    yield Figure(f"{case}: arrow to first byte, p95", _p95(console.latencies_ms(ARROWS, times)), "ms", arrow_ms)
    yield Figure(f"{case}: change of pane, p95", _p95(console.latencies_ms(PANES, times)), "ms", pane_ms)


def _feed(workspace: str, seconds: float, case: str) -> Iterator[Figure]:
    child = subprocess.Popen(
        [sys.executable, "-m", "engine", "--workspace", workspace, "watch"], stdout=subprocess.DEVNULL
    )
    try:
        time.sleep(2 * WARM_S)
        process = psutil.Process(child.pid)
        family = [process, *process.children(recursive=True)]
        before, began = sum(sum(one.cpu_times()[:2]) for one in family), time.monotonic()
        time.sleep(seconds)
        after = sum(sum(one.cpu_times()[:2]) for one in family)
        yield Figure(f"feed, {case}: CPU", 100 * (after - before) / (time.monotonic() - began), "%", 1)
        yield Figure(f"feed, {case}: memory", sum(one.memory_info().rss for one in family) / 1e6, "MB", 80)
    finally:
        child.terminate()
        child.wait(10)


def four_curves(recording: Path, target: Path) -> None:
    """The recording with a second GPU on the host that has one: with both hosts' CPUs four curves, each at 1 Hz."""
    with recording.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as file:
        for line in lines:
            message = json.loads(line)
            devices = message["data"]["devices"] if message["kind"] == "devices" else []
            for gpu in [one for one in devices if one["kind"] == "cuda"]:
                second = gpu | {"index": 1, "utilization": 1 - gpu["utilization"], "processes": []}
                devices.insert(devices.index(gpu) + 1, second)
            file.write(json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n")


def lengthen(recording: Path, target: Path, seconds: float) -> int:
    """Write a recording again and again, each time later, until it lasts so long; its size in bytes."""
    lines = recording.read_text(encoding="utf-8").splitlines()
    times = [datetime.fromisoformat(re.search('"at":"([^"]+)"', line)[1]) for line in lines]  # type: ignore[index]
    length = times[-1] - times[0] + timedelta(seconds=1)
    with target.open("w", encoding="utf-8") as file:
        for turn in range(math.ceil(seconds / length.total_seconds())):
            for line, at in zip(lines, times, strict=True):
                later = (at + turn * length).isoformat(timespec="milliseconds")
                file.write(re.sub('"at":"[^"]+"', f'"at":"{later}"', line, count=1) + "\n")
    return target.stat().st_size


def _engine(workspace: str, *words: str) -> None:
    command = [sys.executable, "-m", "engine", "--workspace", workspace, *words]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def _p95(found: list[float]) -> float:
    return sorted(found)[math.ceil(len(found) * 0.95) - 1]


PARTS: dict[str, Callable[[float], Iterator[Figure]]] = {
    "wire": wire,
    "keys": keys,
    "hang": hang,
    "hour": hour,
    "seek": seek,
    "feed": feed,
    "large": large,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this part; may be repeated")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long rates are measured")
    options = parser.parse_args(arguments)
    os.chdir(Path(__file__).resolve().parents[1])
    figures = []
    for name in options.part or PARTS:
        for figure in PARTS[name](options.seconds):
            figures.append(figure)
            said = "" if figure.limit is None else f"at most {figure.limit:g}{'' if figure.ok else '   MISSED'}"
            line = f"{figure.case:<48} {figure.value:>10,.2f} {figure.unit:<4} {said}".rstrip()
            print(line, file=sys.stderr if options.json else sys.stdout, flush=True)
    if options.json:
        print(json.dumps({"results": [asdict(figure) | {"ok": figure.ok} for figure in figures]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
