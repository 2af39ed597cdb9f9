"""The live stream: `engine watch` as a child, read in a thread, restarted when it ends."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol

from engine.protocol import Health, Message, ProtocolError, SourceState, parse

BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
GRACE_S = 1.0
FIRST_S = 15.0  # for the first message: a cold start on a slow disk
MIN_SILENCE_S = 5.0
UNPROMISED_S = 45.0  # a writer that promises no beat repeats everything after 30 s at the latest
HUNG = 5.0  # so many times its limit, and a silent child is ended and started again
LONGEST = 64_000_000  # bytes of one line
LONGEST_WORDS = 10_000
_BLOCK = 1 << 16


class Feed(Protocol):
    """Where messages come from. `start` is given what to call, from any thread, when there is something new."""

    def start(self, wake: Callable[[], None]) -> None: ...

    def drain(self) -> list[Message]: ...

    def stop(self) -> None: ...

    @property
    def state(self) -> SourceState:
        """`live`; `stale` when it has been silent for longer than it promised; `offline` when there is none."""
        ...

    @property
    def problem(self) -> str:
        """Why nothing comes at the moment; "" while it does."""
        ...

    @property
    def damaged(self) -> int:
        """How many lines could not be read."""
        ...


class Pending:
    """Messages between two threads: a newer snapshot of a kind and host replaces the older one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, str], Message] = {}
        self._shown: dict[tuple[str, str], Any] = {}
        self._woken = False

    def put(self, message: Message) -> bool:
        """Keep a message; whether somebody has to be woken for it.

        One that says what was said before only keeps its snapshot young: it waits for the next that is news.
        """
        key = (message.host, message.kind)
        with self._lock:
            self._newest[key] = message
            if self._woken or self._shown.get(key) == message.data:
                return False
            self._woken = True
            return True

    def take(self) -> list[Message]:
        with self._lock:
            messages = list(self._newest.values())
            self._shown.update((key, message.data) for key, message in self._newest.items())
            self._newest.clear()
            self._woken = False
            return messages

    def forget(self) -> None:
        """Drop what waits, and what was said before."""
        with self._lock:
            self._newest.clear()
            self._shown.clear()
            self._woken = False


@dataclass
class Silence:
    """How long a stream may say nothing: three of the beats it promises, else what an older writer needs."""

    beat_s: float | None = None

    def hear(self, message: Message) -> None:
        if isinstance(message.data, Health):
            self.beat_s = message.data.beat_s

    @property
    def limit_s(self) -> float:
        return max(MIN_SILENCE_S, 3 * self.beat_s) if self.beat_s else UNPROMISED_S


class LiveFeed:
    """Reads `command` (an `engine watch`) for as long as the console runs.

    The child has a session of its own: a Ctrl-C at the terminal does not reach it, and whatever it hangs
    in never holds up a key. One that says nothing for longer than it promised makes the feed `stale`; one that
    stays silent is ended and started again. Its standard error is kept for the sentence that says why it ended.
    """

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.pending = Pending()
        self.state: SourceState = "live"
        self.problem = ""
        self.damaged = 0
        self.started = 0
        self._silence = Silence()
        self._hung = False
        self._wake: Callable[[], None] = lambda: None
        self._stopping = threading.Event()
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the feed
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._spawn()  # at once: it starts while the screen is still being built

    def start(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread.start()

    def drain(self) -> list[Message]:
        return self.pending.take()

    def stop(self) -> None:
        """End the child; one that does not listen is killed."""
        self._stopping.set()
        if self._child is not None:
            end(self._child)

    def _spawn(self) -> None:
        self._errors.seek(0)
        self._errors.truncate()
        self.started += 1
        try:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
                bufsize=0,  # a read brings what is there, and does not wait for more
            )
        except OSError as error:
            self._child = None
            self._say("offline", f"the feed cannot start: {error.strerror}")

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            if self._child is not None:
                came = self._read(self._child)
                if self._stopping.is_set():
                    return
                if came or time.monotonic() - started > 60:
                    failures = 0
                self._say("offline", self._reason(self._child))
            self._wake()
            self._stopping.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
            failures += 1
            if not self._stopping.is_set():
                self._spawn()
                if self._stopping.is_set() and self._child is not None:  # `stop` came between: it saw no child
                    end(self._child)

    def _read(self, child: subprocess.Popen[bytes]) -> bool:
        """Every line until the child ends, or hangs and is ended; whether any message came."""
        assert child.stdout is not None
        rest, came = b"", False
        limit_s, silent_since = FIRST_S, time.monotonic()
        with child.stdout as output, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                silent_s = time.monotonic() - silent_since
                if silent_s >= HUNG * limit_s:
                    end(child)
                    self._hung = True
                    break
                if silent_s >= limit_s and self.state == "live":
                    self._say(
                        "stale",
                        "the engine says nothing that can be read" if self.damaged else "the engine says nothing",
                    )
                wait_s = limit_s - silent_s if silent_s < limit_s else HUNG * limit_s - silent_s
                if not selector.select(wait_s):
                    continue
                block = output.read(_BLOCK)
                if not block:
                    break
                *lines, rest = (rest + block).split(b"\n")
                if len(rest) > LONGEST:
                    self.damaged += 1
                    rest = b""
                heard = [self._take(line) for line in lines]
                if any(heard):
                    came, limit_s = True, self._silence.limit_s
                    silent_since = time.monotonic()
        child.wait()
        return came

    def _take(self, line: bytes) -> bool:
        """One line; whether it was a message, be it one that is not understood here."""
        try:
            message = parse(line)
        except ProtocolError as error:
            if error.kind == "version":
                self._say("offline", str(error))
                return True
            self.damaged += 1
            return False
        self._silence.hear(message)
        revived = self.state != "live"
        self.state, self.problem = "live", ""
        if self.pending.put(message) or revived:
            self._wake()
        return True

    def _say(self, state: SourceState, problem: str) -> None:
        news = (state, problem) != (self.state, self.problem)
        self.state, self.problem = state, problem
        if news:
            self._wake()

    def _reason(self, child: subprocess.Popen[bytes]) -> str:
        if self._hung:
            self._hung = False
            return "the engine hung, and is started again"
        self._errors.seek(0)
        said = self._errors.read()[-LONGEST_WORDS:].decode(errors="replace").strip().splitlines()
        if said:
            return said[-1].removeprefix("error: ")
        return f"the feed ended (exit {child.returncode})"


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child and all it started; one that does not listen is killed."""
    if child.poll() is not None:
        return
    _signal(child, signal.SIGTERM)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        _signal(child, signal.SIGKILL)


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the child and all it started."""
    try:
        os.killpg(child.pid, number)
    except ProcessLookupError:
        return
