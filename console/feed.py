"""The live stream: `engine watch` as a child, read in a thread, restarted when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Protocol

from engine.protocol import Message, ProtocolError, parse

BACK_OFF_S = (1.0, 2.0, 5.0, 10.0, 30.0)
GRACE_S = 1.0


class Feed(Protocol):
    """Where messages come from. `start` is given what to call, from any thread, when there is something new."""

    def start(self, wake: Callable[[], None]) -> None: ...

    def drain(self) -> list[Message]: ...

    def stop(self) -> None: ...

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

    def put(self, message: Message) -> bool:
        """Keep a message; whether the box was empty before (somebody has to be woken)."""
        with self._lock:
            first = not self._newest
            self._newest[message.host, message.kind] = message
            return first

    def take(self) -> list[Message]:
        with self._lock:
            messages = list(self._newest.values())
            self._newest.clear()
            return messages


class LiveFeed:
    """Reads `command` (an `engine watch`) for as long as the console runs.

    The child has a session of its own: a Ctrl-C at the terminal does not reach it, and whatever it hangs
    in never holds up a key. Its standard error is kept for the sentence that says why it ended.
    """

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.pending = Pending()
        self.problem = ""
        self.damaged = 0
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
        try:
            self._child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._child = None
            self.problem = f"the feed cannot start: {error.strerror}"

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            if self._child is not None and self._read(self._child):
                failures = 0
            if self._stopping.is_set():
                return
            if time.monotonic() - started > 60:
                failures = 0
            self.problem = self._reason()
            self._wake()
            self._stopping.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
            failures += 1
            if not self._stopping.is_set():
                self._spawn()

    def _read(self, child: subprocess.Popen[bytes]) -> bool:
        """Every line until the child ends; whether any message came."""
        assert child.stdout is not None
        any_came = False
        for line in child.stdout:
            try:
                message = parse(line)
            except ProtocolError as error:
                self.damaged += 1
                if error.kind == "version":
                    self.problem = str(error)
                    self._wake()
                continue
            any_came = True
            self.problem = ""
            if self.pending.put(message):
                self._wake()
        child.wait()
        return any_came

    def _reason(self) -> str:
        if self._child is None:
            return self.problem
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        if said:
            return said[-1].removeprefix("error: ")
        return f"the feed ended (exit {self._child.returncode})"


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
