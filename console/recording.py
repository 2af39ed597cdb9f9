"""A recording of the stream on disk: found by time without an index, read a line at a time.

The lines stand in the order of their times, so that a moment is found by halving the file: twenty short reads in
100 MB, no memory, and no waiting before the first picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from console.text import moment
from engine.errors import UsageError

_AT = re.compile(rb'"at":\s*"([^"]+)"')
_HEAD = 400  # the envelope comes first: beyond this there is no time of a message
_LONGEST = 64_000_000
_TAIL = 1 << 20


@dataclass(frozen=True)
class Line:
    """A line, where the next one begins, and its time in seconds since the epoch (None: no message)."""

    text: bytes
    next: int
    at: float | None


class Recording:
    """A file of JSON Lines.

    Raises:
        UsageError: it holds no message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self.size = path.stat().st_size
        first = self._first_from(0)
        if first is None:
            self._file.close()
            raise UsageError(f"{path} holds no message", "make one with: python -m engine watch > FILE")
        self.begin = first[1]
        self.end = max(self.begin, self._last())

    def close(self) -> None:
        self._file.close()

    def line(self, place: int) -> Line | None:
        """The line that begins at byte `place`; None at the end of the file."""
        self._file.seek(place)
        text = self._file.readline(_LONGEST)
        return Line(text, place + len(text), _time(text)) if text else None

    def find(self, at: float) -> int:
        """Where the first line of this time or later begins; the file's size when all are earlier."""
        low, high = 0, self.size
        while high - low > 1:
            middle = (low + high) // 2
            found = self._first_from(self._line_after(middle))
            if found is None or found[1] >= at:
                high = middle
            else:
                low = middle
        place = self._line_after(high) if low else 0
        while (line := self.line(place)) is not None and (line.at is None or line.at < at):
            place = line.next
        return place

    def _line_after(self, place: int) -> int:
        """Where the line after the one that byte `place` lies in begins."""
        self._file.seek(place)
        return place + len(self._file.readline(_LONGEST))

    def _first_from(self, place: int) -> tuple[int, float] | None:
        """The first line from here on that has a time: its place and the time."""
        while (line := self.line(place)) is not None:
            if line.at is not None:
                return place, line.at
            place = line.next
        return None

    def _last(self) -> float:
        """The newest time that stands near the end."""
        start, newest = self.size, self.begin
        while start > 0:
            start = max(0, start - _TAIL)
            place = self._line_after(start) if start else 0
            found = None
            while (line := self.line(place)) is not None:
                found = line.at if line.at is not None else found
                place = line.next
            if found is not None:
                return found
        return newest


def _time(text: bytes) -> float | None:
    found = _AT.search(text, 0, _HEAD)
    return moment(found.group(1).decode(errors="replace")) if found else None
