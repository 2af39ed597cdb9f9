"""A console on a real pseudo-terminal: what it sends is counted and thrown away, keys are pressed and timed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import psutil


class Terminal:
    """`python -m console WORDS...` on a terminal of this size; use it in a `with` block."""

    def __init__(self, words: list[str], width: int, height: int) -> None:
        self.began = time.monotonic()
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
            environment.pop("NO_COLOR", None)
            os.execve(sys.executable, [sys.executable, "-m", "console", *words], environment)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.process = psutil.Process(self.pid)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._terminal, b"q")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if select.select([self._terminal], [], [], 0)[0]:
                self._read()
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                break
            time.sleep(0.05)
        else:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def until(self, wanted: bytes, limit_s: float = 20.0) -> float:
        """Seconds from the start of the program until `wanted` was on the wire, or until it was given up."""
        seen, deadline = b"", time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if select.select([self._terminal], [], [], 0.05)[0]:
                seen += self._read()
                if wanted in seen:
                    return time.monotonic() - self.began
        return time.monotonic() - self.began

    def press(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def drain(self, seconds: float) -> int:
        """How many bytes came in so many seconds."""
        total, deadline = 0, time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._terminal], [], [], left)[0]:
                total += len(self._read())
        return total

    def watch(self, seconds: float) -> tuple[float, float]:
        """Bytes a second on the wire and the app's share of one core, over so many seconds."""
        before, started = self.process.cpu_times(), time.monotonic()
        total = self.drain(seconds)
        spent, after = time.monotonic() - started, self.process.cpu_times()
        busy = after.user + after.system - before.user - before.system
        return total / spent, busy / spent

    def latencies_ms(self, keys: list[bytes], times: int = 40) -> list[float]:
        """Milliseconds from each key to the first byte after it; one that is not answered within a second is 1000."""
        found = []
        for index in range(times):
            self.drain(0.08)
            pressed = time.monotonic()
            self.press(keys[index % len(keys)])
            answered = select.select([self._terminal], [], [], 1.0)[0]
            found.append((time.monotonic() - pressed) * 1000 if answered else 1000.0)
        return found

    @property
    def rss_mb(self) -> float:
        return float(self.process.memory_info().rss / 1e6)

    def _read(self) -> bytes:
        try:
            return os.read(self._terminal, 65536)
        except OSError:  # Linux says so when the other side has closed
            return b""
