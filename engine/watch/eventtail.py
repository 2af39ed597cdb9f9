"""The newest events, read on from where the last look ended: what a look costs does not grow with the log."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path
from typing import BinaryIO

from engine.protocol import NEWEST, Event, Events, ProtocolError, from_json

_BLOCK = 1 << 16
_KNOWN = 256  # bytes before the offset by which the file is known again


class EventTail:
    """Follows `events.jsonl`. A damaged line is left out and said; what comes after it is read.

    `problem` names what could not be read of the newest events, or is None.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark: tuple[int, int] | None = None  # inode and time of the last change
        self._offset = 0
        self._known = b""  # the last bytes before the offset
        self._newest: deque[Event | None] = deque(maxlen=NEWEST)  # None: a damaged line
        self._events = Events()
        self.problem: str | None = None

    def look(self) -> Events:
        """The newest events as they are now.

        Raises:
            OSError: the log cannot be read.
        """
        try:
            stream = self._path.open("rb")
        except FileNotFoundError:
            self._forget()
            self._events, self.problem = Events(), None
            return self._events
        with stream:
            facts = os.fstat(stream.fileno())
            mark = (facts.st_ino, facts.st_mtime_ns)
            if mark == self._mark and facts.st_size == self._offset:
                return self._events
            # the inode alone does not tell: a new file may get the one of a file that was removed
            grown = self._mark is not None and mark[0] == self._mark[0] and facts.st_size > self._offset
            if not (grown and self._is_known(stream)):  # another file, or changed in place
                self._forget()
                self._offset = _newest_from(stream, facts.st_size)
            stream.seek(self._offset)
            block = stream.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._mark = mark
        self._offset += len(whole)
        self._known = (self._known + whole)[-_KNOWN:]
        self._newest.extend(map(_read, (line for line in whole.split(b"\n") if line)))
        events = [event for event in self._newest if event is not None]
        damaged = len(self._newest) - len(events)
        lines = "a damaged line" if damaged == 1 else f"{damaged} damaged lines"
        self.problem = (
            f"{self._path.name} has {lines} among its newest; look with: python -m engine doctor"
            if damaged
            else None
        )
        # ids count from 1: the last one's is how many there are
        self._events = (
            Events(events=events, total=events[-1].id, head=events[-1].hash) if events else Events(total=damaged)
        )
        return self._events

    def _is_known(self, stream: BinaryIO) -> bool:
        stream.seek(self._offset - len(self._known))
        return stream.read(len(self._known)) == self._known

    def _forget(self) -> None:
        self._mark, self._offset, self._known = None, 0, b""
        self._newest.clear()


def _read(line: bytes) -> Event | None:
    try:
        return from_json(Event, json.loads(line), "event")
    except (ValueError, RecursionError, ProtocolError):
        return None


def _newest_from(stream: BinaryIO, size: int) -> int:
    """Where the newest `NEWEST` lines of a file of this size begin."""
    start, block = size, b""
    while start > 0 and block.count(b"\n") <= NEWEST:
        step = min(_BLOCK, start)
        start -= step
        stream.seek(start)
        block = stream.read(step) + block
    lines = block.split(b"\n")
    kept = lines[-(NEWEST + 1) :] if start or len(lines) > NEWEST + 1 else lines
    return size - len(b"\n".join(kept))
