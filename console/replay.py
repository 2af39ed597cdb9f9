"""A recording of the stream, played again: pause, speed, back and on."""

from __future__ import annotations

import re
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from console.feed import Pending
from console.text import moment
from engine.errors import UsageError
from engine.protocol import Message, ProtocolError, parse

_AT = re.compile(rb'"at":\s*"([^"]+)"')
WARM_UP_S = 120.0
SPEEDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0)


class Replay:
    """Plays a file of JSON Lines by its own times. Only the places of the lines are held in memory.

    Raises:
        UsageError: the file holds no message.
    """

    def __init__(self, path: Path, speed: float = 1.0) -> None:
        self.path = path
        self.speed = speed
        self.paused = False
        self.problem = ""
        self.damaged = 0
        self.times = array("d")
        self.places = array("q")
        self.pending = Pending()
        self._wake: Callable[[], None] = lambda: None
        self._lock = threading.Condition()
        self._stopping = False
        self._jumped = False
        self._index()
        self._position = self.times[0]
        self._anchor = time.monotonic()
        self._next = 0
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    def _index(self) -> None:
        with self.path.open("rb") as file:
            place = 0
            for line in file:
                found = _AT.search(line, 0, 400)
                at = moment(found.group(1).decode()) if found else None
                if at is not None:
                    self.times.append(max(at, self.times[-1]) if self.times else at)
                    self.places.append(place)
                place += len(line)
        if not self.times:
            raise UsageError(f"{self.path} holds no message", "make one with: python -m engine watch > FILE")

    @property
    def begin(self) -> float:
        return self.times[0]

    @property
    def end(self) -> float:
        return self.times[-1]

    @property
    def now(self) -> float:
        """The recording's present time, in seconds since the epoch."""
        with self._lock:
            return self._moment()

    def _moment(self) -> float:
        if self.paused:
            return self._position
        return min(self.end, self._position + (time.monotonic() - self._anchor) * self.speed)

    def _hold(self) -> None:
        self._position = self._moment()
        self._anchor = time.monotonic()

    def start(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._anchor = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            self._lock.notify()

    def drain(self) -> list[Message]:
        return self.pending.take()

    def jumped(self) -> bool:
        """Whether the recording went back since the last call: what is known must be forgotten."""
        jumped, self._jumped = self._jumped, False
        return jumped

    def pause(self) -> None:
        """Stop, or go on."""
        with self._lock:
            self._hold()
            self.paused = not self.paused
            self._anchor = time.monotonic()
            self._lock.notify()

    def faster(self, steps: int) -> None:
        """The next speed up (1) or down (-1)."""
        with self._lock:
            self._hold()
            nearest = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
            self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, nearest + steps))]
            self._lock.notify()

    def seek(self, seconds: float) -> None:
        """Go on or back by seconds of the recording."""
        with self._lock:
            self._hold()
            self._position = max(self.begin, min(self.end, self._position + seconds))
            if seconds < 0:
                start = self._position - WARM_UP_S
                self._next = next((i for i, at in enumerate(self.times) if at >= start), 0)
                self.pending.take()
                self._jumped = True
            self._lock.notify()
        self._wake()

    def _run(self) -> None:
        with self.path.open("rb") as file:
            while True:
                with self._lock:
                    if self._stopping:
                        return
                    if self._next >= len(self.times):
                        self._lock.wait()
                        continue
                    wait = (self.times[self._next] - self._moment()) / self.speed
                    if wait > 0:
                        self._lock.wait(None if self.paused else wait)
                        continue
                    file.seek(self.places[self._next])
                    self._next += 1
                    line = file.readline()
                    try:
                        first = self.pending.put(parse(line))
                    except ProtocolError as error:
                        self.damaged += 1
                        if error.kind == "version":
                            self.problem = str(error)
                        first = True
                if first:
                    self._wake()


def read_all(path: Path, until: float | None = None) -> list[Message]:
    """Every readable message of a recording up to a time, for pictures and tests."""
    messages = []
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                message = parse(line)
            except ProtocolError:
                continue
            at = moment(message.at)
            if until is not None and at is not None and at > until:
                break
            messages.append(message)
    return messages
