"""A recording of the stream, played again: pause, speed, back and on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from console.feed import Pending, Silence
from console.recording import Recording
from console.text import moment
from engine.protocol import Message, ProtocolError, SourceState, parse

WARM_UP_S = 120.0  # before a moment that was jumped to: by then every kind was said at least once
SPEEDS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 50.0)


class Replay:
    """Plays a file of JSON Lines by its own times.

    Raises:
        UsageError: the file holds no message.
    """

    def __init__(self, path: Path, speed: float = 1.0) -> None:
        self.path = path
        self.speed = speed
        self.paused = False
        self.state: SourceState = "live"
        self.problem = ""
        self.damaged = 0
        self.pending = Pending()
        self._recording = Recording(path)
        self._silence = Silence()
        self._wake: Callable[[], None] = lambda: None
        self._lock = threading.Condition()
        self._stopping = False
        self._jumped = False
        self._position = self._said_at = self._recording.begin
        self._anchor = time.monotonic()
        self._place = self._furthest = 0
        self._thread = threading.Thread(target=self._run, name="replay", daemon=True)

    @property
    def begin(self) -> float:
        return self._recording.begin

    @property
    def end(self) -> float:
        return self._recording.end

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
            place = self._recording.find(self._position - WARM_UP_S)
            if seconds < 0:
                self._place = place
                self.pending.forget()
                self._jumped = True
            self._place = max(self._place, place)
            self._said_at = self._position
            self._lock.notify()
        self._wake()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._stopping:
                    self._recording.close()
                    return
                line = self._recording.line(self._place)
                if line is None:
                    self._lock.wait()
                    continue
                wait_s = ((line.at or self._said_at) - self._moment()) / self.speed
                if wait_s > 0:
                    quiet_s = (self._said_at + self._silence.limit_s - self._moment()) / self.speed
                    woken = self._lock.wait(None if self.paused else max(0.0, min(wait_s, quiet_s)) or wait_s)
                    news = not woken and quiet_s < wait_s and self._be_silent()
                else:
                    news = self._play(line.text, self._place)
                    self._place = line.next
                    self._said_at = max(self._said_at, line.at or self._said_at)
            if news:
                self._wake()

    def _play(self, text: bytes, place: int) -> bool:
        """Say one line of the recording; whether somebody has to be woken."""
        again, self._furthest = place < self._furthest, max(self._furthest, place + 1)
        if not text.strip():
            return False
        try:
            message = parse(text)
        except ProtocolError as error:
            self.damaged += not again
            if error.kind == "version":
                self.state, self.problem = "offline", str(error)
            return True
        self._silence.hear(message)
        revived, self.state, self.problem = self.state != "live", "live", ""
        return self.pending.put(message) or revived

    def _be_silent(self) -> bool:
        """The recorded stream says nothing for longer than it promised; whether that is news."""
        if self.state != "live":
            return False
        self.state, self.problem = "stale", "the engine said nothing"
        return True


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
