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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from engine.config.secrets import NAMES
from engine.errors import Failed
from engine.serving import frames
from engine.serving.lifeline import child_environment

_START_S = 30.0
_END_S = 2.0
_LONGEST_HOLD_S = 0.5
_AHEAD_BYTES = 4 * 1024 * 1024  # bodies that lie ready for the worker's threads; a host may not allow it
_SMALL = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
}


class WorkerGone(Exception):
    """The worker process ended before it answered."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is HTTP's, `rows` the batch's size, `head` the inference header's length (0: none), `top` the
    index of the most probable class (negative: none) with its `confidence`, `release` who answered."""

    status: int
    rows: int
    head: int
    top: int
    confidence: float
    body: bytes
    release: str


Done = Callable[["Answer | None"], None]
"""Called with the answer, or with None when the worker died without giving one."""


class Link(asyncio.Protocol):
    """One worker process. Made with `spawn`; `card` is filled by `load`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.card: dict[str, Any] = {}
        self.loaded_at: str | None = None
        self.gone = asyncio.Event()
        self.watched = False
        self.heard = time.monotonic()
        self._hello: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending: dict[int, Done] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._last = 0
        self._release = ""
        self._held: list[tuple[bytes, bytes]] | None = None
        self._left = 0
        self._successor: Link | None = None

    @classmethod
    async def spawn(cls, threads: int) -> Link:
        """Start a worker; it imports its libraries while the caller goes on (`ready` waits for that)."""
        ours, theirs = socket.socketpair()
        with contextlib.suppress(OSError):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD_BYTES)
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

    async def load(self, release: str, path: Path, loaded_at: str, how: dict[str, Any]) -> None:
        """Have the worker check, load and warm up a release.

        Args:
            how: `max_pixels`, `runtime`, `device`, `task`, `batch_window_ms`.

        Raises:
            Failed: it does not load, or the worker died of it.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._hello), _START_S)
            order = {"release": release, "path": str(path), **how}
            answer = await self.request(frames.LOAD, 0, json.dumps(order).encode())
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
        self.card, self.loaded_at, self._release = value, loaded_at, release

    def ask(self, kind: int, argument: int, body: bytes, done: Done) -> None:
        """Send one request; `done` is called exactly once, from the event loop or at once."""
        if self._transport is None or self.gone.is_set():
            done(None)
            return
        self._last = ident = self._last % 0xFFFFFFFF + 1
        if not self._pending:
            self.heard = time.monotonic()
            self._idle.clear()
            if self._held is None:
                kind |= frames.ALONE
        self._pending[ident] = done
        frame = (frames.REQUEST.pack(len(body), ident, kind, argument), body)
        if self._held is None:
            self._transport.writelines(frame)
        else:
            self._held.append(frame)

    def take_over(self, other: Link, left: int) -> None:
        """Hold what is asked from now on until `other` has `left` requests to answer, or for a short while.

        Two workers that share the cores would both be slow: so each request is answered in its turn.
        """
        other._go_on()
        if other.in_flight <= left or other.gone.is_set():
            return
        self._held, other._left, other._successor = [], left, self
        asyncio.get_running_loop().call_later(_LONGEST_HOLD_S, self._go_on)

    def _go_on(self) -> None:
        frames_held, self._held = self._held, None
        if frames_held and self._transport is not None:
            self._transport.writelines([part for frame in frames_held for part in frame])

    def _yield_to_successor(self) -> None:
        if self._successor is not None and (len(self._pending) <= self._left or self.gone.is_set()):
            successor, self._successor = self._successor, None
            successor._go_on()

    async def request(self, kind: int, argument: int, body: bytes) -> Answer:
        """Send one request and wait for its answer.

        Raises:
            WorkerGone: the worker died without one.
        """
        future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self.ask(kind, argument, body, lambda found: None if future.done() else future.set_result(found))
        answer = await future
        if answer is None:
            raise WorkerGone
        return answer

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    async def idle(self, timeout_s: float) -> bool:
        """Wait until everything asked is answered; False when it took longer or the worker died."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return not self._pending and not self.gone.is_set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything asked is answered, `timeout_s` at the most, then end the process."""
        await self.idle(timeout_s)
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
            length, ident, status, rows, head, top, confidence = frames.ANSWER.unpack_from(self._buffer, start)
            if len(self._buffer) - start - size < length:
                break
            body = bytes(memoryview(self._buffer)[start + size : start + size + length])
            start += size + length
            answer = Answer(status, rows, head, top, confidence, body, self._release)
            if ident == frames.HELLO:
                if not self._hello.done():
                    self._hello.set_result(answer)
            elif done := self._pending.pop(ident, None):
                done(answer)
        if start:
            del self._buffer[:start]
        self._yield_to_successor()
        if not self._pending:
            self._idle.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail_pending()
        self._yield_to_successor()

    def _fail_pending(self) -> None:
        self.gone.set()
        waiting = list(self._pending.values())
        self._pending.clear()
        self._idle.set()
        if not self._hello.done():
            self._hello.set_exception(WorkerGone())
            self._hello.exception()  # nobody may be waiting any more
        for done in waiting:
            done(None)


def _cause(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
