"""Load on a server: wrk for throughput, raw clients that keep every answer, probes beside a flood."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import subprocess
import threading
import time
from pathlib import Path

_LUA = """
local bodies, count, turn = {}, %d, 0
for i = 0, count - 1 do
  local file = io.open("%s/" .. i .. ".jpg", "rb"); bodies[i] = file:read("*a"); file:close()
end
local pause = %d
if pause > 0 then delay = function() return math.random(0, 2 * pause) end end
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


_DRAIN_S = 0.5  # what the run before left in a server's queue when its clients went


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def wrk_command(port: int, folder: Path, connections: int, seconds: int, pause_ms: int = 0) -> list[str]:
    """wrk with the JPEGs of `folder`; `pause_ms`: the mean pause of a connection between two requests."""
    script = folder / f"post-{pause_ms}.lua"
    script.write_text(_LUA % (len(list(folder.glob("*.jpg"))), folder, pause_ms))
    url = f"http://127.0.0.1:{port}/"
    return ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]


def wrk(port: int, folder: Path, connections: int, seconds: int) -> dict[str, float]:
    """Requests a second and latencies with `connections` that ask without a pause."""
    command = wrk_command(port, folder, connections, seconds)
    time.sleep(_DRAIN_S)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


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


class Clients:
    """Connections that ask without a pause, over raw sockets; every answer is kept."""

    def __init__(self, port: int, images: list[bytes], connections: int) -> None:
        self._port, self._connections = port, connections
        self._requests = [
            b"POST /predict HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % len(one) + one
            for one in images
        ]
        self.answers: list[tuple[float, float, int, str, str]] = []  # begun, seconds, status, release, label
        self.stopped = False

    async def run(self) -> None:
        await asyncio.gather(*(self._one(index) for index in range(self._connections)))

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


class Probes:
    """A few threads that ask now and then; each keeps status and seconds of every answer."""

    def __init__(self, port: int, image: bytes, threads: int = 4, pause_s: float = 0.02) -> None:
        self._port, self._pause_s = port, pause_s
        self._request = b"POST /predict HTTP/1.1\r\nHost: probe\r\nContent-Length: %d\r\n\r\n" % len(image) + image
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.answers: list[tuple[int, float]] = []

    def __enter__(self) -> Probes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def seconds(self, status: int) -> list[float]:
        return [took for found, took in self.answers if found == status]

    def _run(self) -> None:
        import socket

        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as stream:
            while not self._stopped.wait(self._pause_s):
                begun = time.perf_counter()
                stream.sendall(self._request)
                text = b""
                while b"\r\n\r\n" not in text:
                    text += stream.recv(65536)
                head, _, body = text.partition(b"\r\n\r\n")
                left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
                while left > 0:
                    left -= len(stream.recv(left))
                self.answers.append((int(head.split()[1]), time.perf_counter() - begun))


def percentile_ms(seconds: list[float], fraction: float) -> float | None:
    """Milliseconds; None of nothing."""
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(fraction * len(ordered)))], 2) if ordered else None
