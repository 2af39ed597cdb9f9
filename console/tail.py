"""The log tail: `engine logs NAME --follow --json` as a child, its newest lines kept in a ring."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from typing import IO

from console.feed import BACK_OFF_S, end

LINES = 1000
_BLOCK = 1 << 16


class Tail:
    """Follows one log for as long as somebody looks at it. A child that ends is started again.

    Args:
        command: `engine logs [NAME] --follow --json`.
        wake: called, from a thread, when lines came or `problem` changed; lines read at once wake once.

    `lines` may be read from any thread: `list(tail.lines)` is one step of the interpreter.
    """

    def __init__(self, command: list[str], wake: Callable[[], None]) -> None:
        self.command = command
        self.name = ""
        self.lines: deque[str] = deque(maxlen=LINES)
        self.problem = ""
        self._wake = wake
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the child; one that does not listen is killed."""
        self._stopping.set()
        if self._child is not None:
            end(self._child)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            before = len(self.lines)
            self._follow()
            if self._stopping.is_set():
                return
            self._wake()
            failures = 0 if len(self.lines) != before else failures + 1
            self._stopping.wait(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])

    def _follow(self) -> None:
        with tempfile.TemporaryFile() as errors:
            try:
                child = self._child = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    start_new_session=True,
                    bufsize=0,  # a read brings what is there, and does not wait for more
                )
            except OSError as error:
                self.problem = f"the log cannot be followed: {error.strerror}"
                return
            if self._stopping.is_set():  # `stop` came between: it saw no child
                end(child)
            assert child.stdout is not None
            with child.stdout as output:
                self._read(output)
            code = child.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
        self.problem = said[-1].removeprefix("error: ") if said else f"the log's reader ended (exit {code})"

    def _read(self, output: IO[bytes]) -> None:
        """Every line until the child ends. It begins with the newest lines, which take the place of those shown."""
        rest, first = b"", True
        while block := output.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            if first:
                self.lines.clear()
                first = False
            for line in lines:
                self._take(line)
            if lines:
                self._wake()

    def _take(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            name, text = value["name"], value["line"]
        except (ValueError, LookupError, TypeError):
            self.problem = "a line of the log could not be read"
        else:
            self.name, self.problem = str(name), ""
            self.lines.append(str(text))
