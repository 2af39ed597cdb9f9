"""The front's end of one worker process: spawning it, asking it, ending it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engine.config.secrets import NAMES
from engine.errors import Failed
from engine.serving import frames
from engine.serving.lifeline import child_environment

_START_S = 30.0
_END_S = 2.0
_SMALL = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


class WorkerGone(Exception):
    """The worker process ended before it answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is HTTP's, `rows` the batch's size, `head` the inference header's length (0: none)."""

    status: int
    rows: int
    head: int
    body: bytes


class Link(asyncio.Protocol):
    """One worker process. Made with `spawn`; `card` is filled by `load`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.card: dict[str, Any] = {}
        self.loaded_at: str | None = None
        self.gone = asyncio.Event()
        self.heard = time.monotonic()
        self._hello: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._last = 0

    @classmethod
    async def spawn(cls, threads: int) -> Link:
        """Start a worker; it imports its libraries while the caller goes on (`ready` waits for that)."""
        ours, theirs = socket.socketpair()
        with theirs:
            root = str(Path(__file__).resolve().parents[2])
            environment = {key: value for key, value in child_environment().items() if key not in NAMES}
            path = environment.get("PYTHONPATH")
            environment |= _SMALL | {"PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
            # Spawned from the loop's own thread: the kernel ends the child when that thread ends.
            process = subprocess.Popen(
                [sys.executable, "-m", "engine.serving.worker", str(theirs.fileno()), str(threads)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
            )
        ours.setblocking(False)
        link = cls(process)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=ours)
        return link

    async def load(self, release: str, path: Path, max_pixels: int, loaded_at: str) -> None:
        """Have the worker check, load and warm up a release.

        Raises:
            Failed: it does not load, or the worker died of it.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._hello), _START_S)
            order = {"release": release, "path": str(path), "max_pixels": max_pixels}
            answer = await self.ask(frames.LOAD, 0, json.dumps(order).encode())
        except (WorkerGone, TimeoutError):
            code = await self.end()
            raise Failed(
                f"the worker died while loading release {release[:8]} ({_cause(code)})",
                "see the server's log; the slot goes on with what it has",
                kind="worker_died",
            ) from None
        value = json.loads(answer.body)
        if answer.status != 200:
            error = value["error"]
            raise Failed(error["message"], error["hint"], kind=error["kind"])
        self.card, self.loaded_at = value, loaded_at

    def ask(self, kind: int, argument: int, body: bytes) -> asyncio.Future[Answer]:
        """Send one request; the future gives its answer or raises WorkerGone.

        Raises:
            WorkerGone: the worker is dead already.
        """
        if self._transport is None or self.gone.is_set():
            raise WorkerGone
        self._last = ident = self._last % 0xFFFFFFFF + 1
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self._pending:
            self.heard = time.monotonic()
            self._idle.clear()
        self._pending[ident] = future
        self._transport.writelines((frames.REQUEST.pack(len(body), ident, kind, argument), body))
        return future

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything asked is answered, `timeout_s` at the most, then end the process."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        await self.end()

    async def end(self) -> int:
        """End the process and return its exit code; what it had not answered raises WorkerGone."""
        if self._transport is not None:
            self._transport.close()
        if not self._hello.done():
            self.process.kill()  # still importing: it would not see the socket's end for a while
        deadline = time.monotonic() + _END_S
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
            await asyncio.sleep(0.01)
        self._fail_pending()
        return self.process.returncode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        self._buffer += data
        start, size = 0, frames.ANSWER.size
        while len(self._buffer) - start >= size:
            length, ident, status, rows, head = frames.ANSWER.unpack_from(self._buffer, start)
            if len(self._buffer) - start - size < length:
                break
            body = bytes(memoryview(self._buffer)[start + size : start + size + length])
            start += size + length
            future = self._pending.pop(ident, None) if ident else self._hello
            if future is not None and not future.done():
                future.set_result(Answer(status, rows, head, body))
        if start:
            del self._buffer[:start]
        if not self._pending:
            self._idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self._fail_pending()

    def _fail_pending(self) -> None:
        self.gone.set()
        waiting = [*self._pending.values(), self._hello]
        self._pending.clear()
        self._idle.set()
        for future in waiting:
            if not future.done():
                future.set_exception(WorkerGone())
                future.exception()  # nobody may be waiting any more


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
