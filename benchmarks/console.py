"""What the console costs: bytes on the wire, CPU, memory and the first paint, on a real pseudo-terminal.

A child feed writes the recorded protocol at 1 Hz: two hosts whose devices change, a training with two
curves and moving figures, both slots under load. `python -m benchmarks.console [--json] [--seconds S]`.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from typing import Any

import psutil

RECORDING = Path(__file__).resolve().parents[1] / "tests" / "console" / "recordings" / "evening.jsonl"
IDLE = RECORDING.with_name("empty.jsonl")
WARM_S = 4.0


def run(
    recording: Path,
    width: int,
    height: int,
    seconds: float,
    *,
    still: bool,
    warm: float = WARM_S,
    keys: bool = True,
) -> dict[str, Any]:
    """One console on a pseudo-terminal of this size for `seconds` after it has warmed up."""
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        environment.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "console", "--replay", str(recording)]
        os.execve(sys.executable, command, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = psutil.Process(pid)
    painted = _until(terminal, began + 10, b"8891")
    _drain(terminal, time.monotonic() + warm / 2)
    os.write(terminal, b"1")
    _drain(terminal, time.monotonic() + warm / 2)
    used, started = process.cpu_times(), time.monotonic()
    total = _drain(terminal, started + seconds)
    spent = time.monotonic() - started
    after = process.cpu_times()
    memory = process.memory_info().rss
    os.write(terminal, b"3")
    latency = _keys(terminal) if keys and not still else None
    os.write(terminal, b"q")
    _end(pid, terminal)
    return {
        "case": f"{width}x{height} {'idle' if still else 'live'}",
        "bytes_per_s": round(total / spent, 1),
        "cpu_percent": round(100 * (after.user + after.system - used.user - used.system) / spent, 2),
        "rss_mb": round(memory / 1e6, 1),
        "first_paint_s": round(painted - began, 3) if painted else None,
        "key_p95_ms": latency,
    }


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the other side has closed
        return b""


def _until(terminal: int, deadline: float, wanted: bytes) -> float | None:
    seen = b""
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            seen += _read(terminal)
            if wanted in seen:
                return time.monotonic()
    return None


def _drain(terminal: int, deadline: float) -> int:
    total = 0
    while (left := deadline - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            total += len(_read(terminal))
    return total


def _keys(terminal: int) -> float:
    """Milliseconds from an arrow key to the first byte that answers it, 95th percentile of 40."""
    found = []
    for index in range(40):
        _drain(terminal, time.monotonic() + 0.08)
        pressed = time.monotonic()
        os.write(terminal, b"\x1b[B" if index % 4 < 2 else b"\x1b[A")
        if select.select([terminal], [], [], 1.0)[0]:
            found.append((time.monotonic() - pressed) * 1000)
    return round(sorted(found)[int(len(found) * 0.95)], 1) if found else float("nan")


def _end(pid: int, terminal: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0)[0]:
            _read(terminal)
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(terminal)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(arguments)
    results = [
        run(RECORDING, 120, 40, options.seconds, still=False),
        run(RECORDING, 80, 24, options.seconds, still=False),
        run(IDLE, 120, 40, options.seconds, still=True),
    ]
    if options.json:
        print(json.dumps({"results": results}))
        return 0
    columns = list(results[0])
    rows = [columns, *([str(row[column]) for column in columns] for row in results)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
