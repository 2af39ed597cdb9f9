"""The unfinished copy of one content, which a later look goes on from.

Beside `HASH.pth.part` lies a log of windows: a line `OFFSET SHA256` for the bytes before each multiple of WINDOW.
A later look hashes what lies there and goes on behind the last line that holds, so that nothing is trusted
because it exists and at most one window comes twice. Neither file is fsynced: what a power cut leaves of them
does not hold, and is fetched again; the disk is slower than the network.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Self

WINDOW = 4 << 20
_LINE = re.compile(rb"(\d{1,19}) ([0-9a-f]{64})\n")
_LINE_BYTES = 19 + 1 + 64 + 1


class Part:
    """An open copy: `offset` bytes of the content are in it, of which `kept` came from an earlier look.

    Raises:
        OSError: the disk.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Go on with the copy at `path` of a content of `size` bytes, or begin it."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._log = os.open(windows(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self.offset = self.kept = self._restore(size)
        self.reconnects = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        os.close(self._log)

    def write(self, chunk: bytes | memoryview) -> None:
        """Add the next bytes."""
        rest = memoryview(chunk)
        while len(rest):
            piece = rest[: WINDOW - self.offset % WINDOW]
            self._hash.update(piece)
            self.offset += len(piece)
            rest = rest[len(piece) :]
            while piece:
                piece = piece[os.write(self._file, piece) :]
            if self.offset % WINDOW == 0:
                os.write(self._log, f"{self.offset} {self.sha256()}\n".encode())

    def sha256(self) -> str:
        """The hash (hex) of what is in it."""
        return self._hash.copy().hexdigest()

    def _restore(self, size: int) -> int:
        """Hash what lies there, cut it behind the last window that holds, and return that window's end."""
        there = min(os.fstat(self._file).st_size, size)
        good, log_end = 0, 0
        trial = self._hash.copy()
        while noted := _LINE.match(os.pread(self._log, _LINE_BYTES, log_end)):
            end = int(noted[1])
            if not good < end <= min(there, good + WINDOW):
                break
            trial.update(os.pread(self._file, end - good, good))
            if trial.hexdigest() != noted[2].decode():
                break
            good, log_end = end, log_end + len(noted[0])
            self._hash = trial.copy()
        os.ftruncate(self._file, good)
        os.ftruncate(self._log, log_end)
        os.lseek(self._file, good, os.SEEK_SET)
        os.lseek(self._log, log_end, os.SEEK_SET)
        return good


def windows(path: Path) -> Path:
    """The log of windows of the copy at `path`."""
    return path.with_name(f"{path.name}.windows")
