"""Clients for measurements: `python -m benchmarks._load PORT CONNECTIONS PAUSE_S` asks until told to stop.

Each connection posts one small image to `/predict`, waits for the whole answer, and asks again after the
pause. When standard input closes, one JSON object is printed: how many answers, which of them failed, which
releases answered, which labels each gave, and when (`time.monotonic()`, seconds) each took how long (ms).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from PIL import Image

PROJECT = Path(__file__).resolve().parents[1]
PATIENCE_S = 20.0


class Answers:
    """What the clients saw."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.took_ms: list[float] = []
        self.failed: list[str] = []
        self.labels: dict[str, set[str]] = defaultdict(set)

    def as_json(self) -> dict[str, Any]:
        return {
            "answers": len(self.at),
            "failed": self.failed[:20],
            "failures": len(self.failed),
            "labels": {release: sorted(labels) for release, labels in self.labels.items()},
            "at": self.at,
            "took_ms": self.took_ms,
        }


def picture() -> bytes:
    """A small red JPEG."""
    stream = io.BytesIO()
    Image.new("RGB", (64, 48), (220, 20, 20)).save(stream, "JPEG")
    return stream.getvalue()


async def _ask(port: int, pause_s: float, answers: Answers) -> None:
    body = picture()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: load\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = head.encode() + body
    while True:
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                began = time.monotonic()
                writer.write(request)
                async with asyncio.timeout(PATIENCE_S):  # before 3.12 `wait_for` may swallow the cancellation
                    status, content = await _answer(reader)
                answers.at.append(began)
                answers.took_ms.append((time.monotonic() - began) * 1e3)
                if status == 200:
                    found = json.loads(content)
                    answers.labels[found["release"]].add(found["label"])
                else:
                    answers.failed.append(f"{status}: {content[:200].decode(errors='replace')}")
                await asyncio.sleep(pause_s)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError, KeyError) as error:
            answers.failed.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.01)
        finally:
            if writer is not None:
                writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    return int(head.split(b" ", 2)[1]), await reader.readexactly(int(fields[b"content-length"]))


async def _run(port: int, connections: int, pause_s: float) -> Answers:
    answers = Answers()
    clients = [asyncio.ensure_future(_ask(port, pause_s, answers)) for _ in range(connections)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return answers


@contextlib.contextmanager
def load(port: int, connections: int, pause_s: float = 0.0) -> Iterator[dict[str, Any]]:
    """Clients in a process of their own while the block runs; the dict is filled when it ends."""
    found: dict[str, Any] = {}
    command = [sys.executable, "-m", "benchmarks._load", str(port), str(connections), str(pause_s)]
    child = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield found
    finally:
        try:
            out, _ = child.communicate(timeout=4 * PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise SystemExit("the clients did not end when they were told to") from None
    found |= json.loads(out)


if __name__ == "__main__":
    seen = uvloop.run(_run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.write(json.dumps(seen.as_json()))
