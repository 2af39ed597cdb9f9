"""One tracker's process, fed through a bounded queue: it may hang, crash or be slow, and nobody waits for it.

The run puts a message into the queue and goes on; a thread writes the queue into the child's standard input. When
the child does not read, the queue fills, and the oldest steps are dropped and counted. The end of a run waits for the
child's last words until a deadline, then the child and whatever it started are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.store.logfile import LogFile


class Feed:
    """An observer that hands everything on to a child.

    Args:
        name: how people know it.
        command: the child's command line; it reads one JSON object a line, `{what, data}`.
        log: where the child's own words go, with secrets masked.
        waiting: messages kept for a slow child.
        timeout_s: how long the end of the run waits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        say: Callable[[str], None],
        *,
        env: Mapping[str, str],
        log: Path,
        waiting: int,
        timeout_s: float,
    ) -> None:
        self._name, self._say, self._waiting, self._timeout_s = name, say, waiting, timeout_s
        self._queue: deque[tuple[str, str]] = deque()
        self._change = threading.Condition()
        self._closed = self._told = False
        self.dropped = 0
        self._last_word = ""
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
        )
        self._writer = threading.Thread(target=self._write, name=f"tracker {name}", daemon=True)
        self._reader = threading.Thread(target=self._read, args=(LogFile(log),), name=f"{name} log", daemon=True)
        self._writer.start()
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._child.pid

    def started(self, manifest: dict[str, Any]) -> None:
        self._put("started", manifest)

    def epoch(self, row: dict[str, Any]) -> None:
        self._put("epoch", row)

    def step(self, progress: dict[str, Any]) -> None:
        self._put("step", progress)

    def ended(self, manifest: dict[str, Any]) -> None:
        """Hand over the last message; `settle` waits for what comes of it."""
        self._put("ended", manifest)
        self._deadline = time.monotonic() + self._timeout_s
        with self._change:
            self._closed = True
            self._change.notify()

    def settle(self) -> None:
        """Wait for the child's end, at most `timeout_s` from `ended` on."""
        deadline = self._deadline
        self._writer.join(max(0.0, deadline - time.monotonic()))
        try:
            code: int | None = self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        if code is None:
            self._tell(f"did not end within {self._timeout_s:g} s and was stopped")
            self._kill()
        elif code:
            self._reader.join(1.0)
            self._tell(f"failed ({self._last_word or f'exit {code}'})")
        if self.dropped:
            self._say(f"note: tracker {self._name} was too slow for {self.dropped} messages; the run has them all")

    def _put(self, what: str, data: dict[str, Any]) -> None:
        line = json.dumps({"what": what, "data": data}, default=str)
        with self._change:
            if self._told:
                return
            if len(self._queue) >= self._waiting and what != "ended":
                self.dropped += 1
                oldest = next((item for item in self._queue if item[0] == "step"), None)
                if oldest is None:
                    return
                self._queue.remove(oldest)
            self._queue.append((what, line))
            self._change.notify()

    def _write(self) -> None:
        stream = self._child.stdin
        assert stream is not None
        try:
            while True:
                with self._change:
                    self._change.wait_for(lambda: self._queue or self._closed)
                    if not self._queue:
                        break
                    line = self._queue.popleft()[1]
                stream.write(line.encode() + b"\n")
                stream.flush()
        except OSError:
            self._reader.join(1.0)
            self._tell(f"failed ({self._last_word or 'it ended'})")
        finally:
            with contextlib.suppress(OSError):
                stream.close()

    def _read(self, log: LogFile) -> None:
        assert self._child.stdout is not None
        for raw in self._child.stdout:
            line = raw.decode(errors="replace").rstrip()
            log.line(line)
            if line:
                self._last_word = line

    def _tell(self, what: str) -> None:
        with self._change:
            before, self._told = self._told, True
        if not before:
            self._say(f"note: tracker {self._name} {what}; the run goes on without it")

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(1.0)
