"""Log files of bounded size: lines with their time, written by several processes, read from their end.

`WORKSPACE/logs/{asis,tobe,sync}.log` turn over at 5 MB into `.1` and `.2`; a run has `runs/RUN/train.log`.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from engine.config.secrets import mask
from engine.store.clock import now
from engine.store.logjson import as_text
from engine.store.workspace import Workspace

NAMES = ("asis", "tobe", "sync")
MAX_BYTES = 5_000_000
KEPT = 3
LONGEST = 4096  # characters of a line that a reader is shown
_BLOCK = 1 << 16
_CHUNK = 1 << 20
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def log_path(workspace: Workspace, name: str) -> Path:
    """Where the log `name` (`asis`, `tobe`, `sync`, a run's number, or `DATE/TIME/N` of a sweep's run) lies."""
    if name in NAMES:
        return workspace.logs / f"{name}.log"
    return (workspace.multirun if "/" in name else workspace.runs) / name / "train.log"


class LogFile(io.TextIOBase):
    """A text stream that appends to a log and turns it over; secrets are masked.

    Several processes may write to one log: each write is one append, and who finds the file too large turns it
    over under a lock of the kernel's. A log that cannot be written (its folder was removed) loses its lines and
    nothing else: what is being logged goes on.

    Args:
        max_bytes: size at which the file turns over; 0 for never.
        kept: how many files there are at most, the present one included.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> None:
        self.path, self._max_bytes, self._kept = path, max_bytes, kept
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = -1
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Append `text` as it stands (with its line breaks)."""
        content = mask(text).encode(errors="backslashreplace")
        with self._lock:
            try:
                self._open()
                os.write(self._handle, content)
            except OSError:
                self._drop()
        return len(text)

    def turn_over(self) -> None:
        """Begin a new file if the present one is too large, without writing anything."""
        self.write("")

    def line(self, text: str) -> None:
        """Append each line of `text` with the time before it."""
        at = now().strftime("%Y-%m-%d %H:%M:%S")
        self.write("".join(f"{at} {line}\n" for line in text.splitlines()))

    def close(self) -> None:
        with self._lock:
            self._drop()
        super().close()

    def _drop(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _open(self) -> None:
        """Have the present file open, turned over if it is too large."""
        if self._handle < 0 or not self._is_present():
            self._drop()
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if not self._max_bytes or os.fstat(self._handle).st_size < self._max_bytes:
            return
        fcntl.flock(self._handle, fcntl.LOCK_EX)  # let go when the handle is closed
        if self._is_present():
            for number in range(self._kept - 1, 0, -1):
                older = rotated(self.path, number - 1)
                if older.exists():
                    older.replace(rotated(self.path, number))
        self._drop()
        self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _is_present(self) -> bool:
        """Whether the open file still has the log's name."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        here = os.fstat(self._handle)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def rotated(path: Path, number: int) -> Path:
    """The file's `number`th predecessor; 0 is the file itself."""
    return path.with_name(f"{path.name}.{number}") if number else path


def is_open_on(path: Path, stream: IO[str]) -> bool:
    """Whether `stream` (standard output, say) writes to the file `path`: then what goes there is logged already."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except OSError:  # no such file yet, or a stream without one
        return False


def last_lines(path: Path, count: int) -> list[str]:
    """The newest `count` lines, oldest first, from the file and those it was turned over into; [] without one."""
    found: list[str] = []
    for number in range(KEPT):
        if len(found) >= count:
            break
        lines, _ = _last_of(rotated(path, number), count - len(found))
        found = [*lines, *found]
    return found


def follow_lines(path: Path, count: int, stop: Callable[[], bool], poll_s: float = 0.2) -> Iterator[str]:
    """The newest `count` lines, then each that is added, over turns of the file, until `stop()` is true."""
    lines, (inode, offset) = _last_of(path, count)
    if len(lines) < count:
        older, _ = _last_of(rotated(path, 1), count - len(lines))
        lines = [*older, *lines]
    yield from lines
    rest = b""
    while not stop():
        found = 0
        for number in reversed(range(_turns_since(path, inode))):
            # the file itself last: each is read to its end before the next, however often it turned over
            with contextlib.suppress(FileNotFoundError), rotated(path, number).open("rb") as stream:
                facts = os.fstat(stream.fileno())
                if facts.st_ino != inode or facts.st_size < offset:  # the next one, or emptied in place
                    inode, offset, rest = facts.st_ino, 0, b""
                stream.seek(offset)
                while block := stream.read(_CHUNK):
                    found += len(block)
                    offset += len(block)
                    lines, rest = _whole(rest + block)
                    yield from lines
        if not found:
            time.sleep(poll_s)


def _turns_since(path: Path, inode: int | None) -> int:
    """How many files of the log there are from the one with this inode on; 1 where it is the present or gone."""
    for number in range(KEPT):
        with contextlib.suppress(FileNotFoundError):
            if rotated(path, number).stat().st_ino == inode:
                return number + 1
    return 1


def plain(line: bytes) -> str:
    """A line as text that a terminal can be given: no JSON, no escapes or control characters, of bounded length."""
    return _ESCAPES.sub("", as_text(line.decode(errors="replace")).replace("\t", "    "))[:LONGEST]


def _whole(block: bytes) -> tuple[list[str], bytes]:
    """The complete lines of a block, and the newest part of what follows them."""
    *lines, rest = block.split(b"\n")
    return [plain(line) for line in lines], rest[-_BLOCK:]


def _last_of(path: Path, count: int) -> tuple[list[str], tuple[int | None, int]]:
    """The newest complete lines of one file; its inode and the place after them."""
    try:
        stream = path.open("rb")
    except OSError:
        return [], (None, 0)
    with stream:
        end = start = stream.seek(0, os.SEEK_END)
        block = b""
        while start > 0 and block.count(b"\n") <= count and len(block) < count * LONGEST + _BLOCK:
            step = min(_BLOCK, start)
            start -= step
            stream.seek(start)
            block = stream.read(step) + block
        inode = os.fstat(stream.fileno()).st_ino
    torn = len(block) - (block.rfind(b"\n") + 1)
    lines = block.split(b"\n")[:-1]
    if start > 0:
        lines = lines[1:]
    return [plain(line) for line in lines[max(0, len(lines) - count) :]], (inode, end - torn)
