"""What the check of a data set found, kept on disk: a verdict for each file, and its decoded pixels.

One file a data set and way of preprocessing: rows uint8 [rows, S, S, 3], the verdicts (npz), their length (8 bytes
little-endian), a magic word. It is written beside, synced, renamed and never changed: a training that has it open
goes on reading it when a newer one takes its name. Rows are read by position, not mapped: the kernel may drop them
when memory is short, and they are no part of the process. Torch-free.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import PIL

from engine.store.files import atomic_writer
from engine.tasks.images.preprocess import Preprocess

VERSION = 1  # of the layout, and of what the check finds
UNSETTLED = -1
_MAGIC = b"USDATA01"
_TAIL = 8 + len(_MAGIC)
_HEADROOM_BYTES = 512 * 1024 * 1024  # what the decoded images leave free on the disk
_ABANDONED_S = 24 * 3600.0


@dataclass
class Verdicts:
    """What is known of each of n files by itself, in the order of their names."""

    stats: np.ndarray  # int64 [n, 4]: size, mtime_ns, ctime_ns, inode; zeros: no file; UNSETTLED: look again
    digests: np.ndarray  # uint8 [n, 32], SHA-256 of the content
    looks: np.ndarray  # uint8 [n, 16], digest of the pixels as the net gets them
    rows: np.ndarray  # int64 [n], where its pixels are; -1: nowhere
    limit: int  # how many rows there might have been
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)  # kind and reason

    @classmethod
    def blank(cls, count: int, limit: int) -> Verdicts:
        return cls(
            np.zeros((count, 4), np.int64),
            np.zeros((count, 32), np.uint8),
            np.zeros((count, 16), np.uint8),
            np.full(count, -1, np.int64),
            limit,
        )


def stats_of(found: os.stat_result) -> tuple[int, int, int, int]:
    """A row of `Verdicts.stats`."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino & 0x7FFFFFFFFFFFFFFF


class Decoded(Protocol):
    """Decoded images by row."""

    def read(self, row: int, out: np.ndarray) -> bool:
        """Fill `out`, uint8 [S, S, 3]; False where the row is not there."""
        ...

    def keep(self, row: int, pixels: np.ndarray) -> None:
        """Have this row from now on, where that is possible."""
        ...


class DecodedMemory:
    """Rows in the process's own memory, filled as they come."""

    def __init__(self, rows: int, side: int) -> None:
        self._pixels = np.empty((rows, side, side, 3), np.uint8)
        self._there = np.zeros(rows, bool)

    def read(self, row: int, out: np.ndarray) -> bool:
        if self._there[row]:
            out[...] = self._pixels[row]
        return bool(self._there[row])

    def keep(self, row: int, pixels: np.ndarray) -> None:
        self._pixels[row] = pixels
        self._there[row] = True  # after the pixels: another thread may be reading


class DecodedFile:
    """Rows of a file of this module."""

    def __init__(self, handle: int, side: int) -> None:
        self._handle, self._bytes = handle, 3 * side * side

    def __del__(self) -> None:
        os.close(self._handle)

    def read(self, row: int, out: np.ndarray) -> bool:
        return os.preadv(self._handle, [out.data], row * self._bytes) == self._bytes

    def keep(self, row: int, pixels: np.ndarray) -> None:
        """The file has all rows that it will ever have."""


@dataclass
class Kept:
    """One kept data set, open."""

    names: list[str]
    verdicts: Verdicts
    decoded: DecodedFile


class Shelf:
    """The kept data sets of a workspace.

    Args:
        limit_bytes: of all of them together; those not used for longest go first.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def path(self, base: Path, preprocess: Preprocess) -> Path:
        facts = [VERSION, PIL.__version__, str(base.absolute()), preprocess.img_size, preprocess.resize]
        return self.folder / hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def open(self, path: Path, side: int) -> Kept | None:
        """What is kept at `path`; None where there is nothing whole."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        decoded = DecodedFile(handle, side)  # closes it
        size = os.fstat(handle).st_size
        tail = os.pread(handle, _TAIL, max(size - _TAIL, 0))
        length = int.from_bytes(tail[:8], "little")
        if tail[8:] != _MAGIC or length > size - _TAIL:
            return None
        names, verdicts = _unpack(os.pread(handle, length, size - _TAIL - length))
        with contextlib.suppress(OSError):  # another account's: it may be used all the same
            os.utime(path)
        return Kept(names, verdicts, decoded)

    def room(self, wanted_bytes: int) -> int:
        """How many bytes of decoded images may be put here: the limit's, and the disk's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free - _HEADROOM_BYTES
        return max(min(wanted_bytes, self.limit_bytes, free), 0)

    @contextlib.contextmanager
    def writer(self, path: Path, names: Sequence[str], verdicts: Verdicts, rows_bytes: int) -> Iterator[BinaryIO]:
        """Takes the rows; `verdicts` are added when the block ends, and then the file gets its name."""
        self._tidy(path, rows_bytes)
        with atomic_writer(path) as stream:
            yield stream
            packed = _pack(names, verdicts)
            stream.write(packed + len(packed).to_bytes(8, "little") + _MAGIC)

    def _tidy(self, besides: Path, needed: int) -> None:
        """Remove what was abandoned in the middle, and the longest unused until there is room within the limit."""
        found = [(entry.stat(), Path(entry.path)) for entry in os.scandir(self.folder) if entry.is_file()]
        whole = sorted((stat.st_mtime, stat.st_size, path) for stat, path in found if not path.suffix)
        over = sum(size for _, size, path in whole if path != besides) + needed - self.limit_bytes
        for _, size, path in whole:
            if over <= 0:
                break
            if path != besides:
                path.unlink(missing_ok=True)
                over -= size
        for stat, path in found:
            if path.suffix == ".part" and time.time() - stat.st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)


def _pack(names: Sequence[str], verdicts: Verdicts) -> bytes:
    faults = json.dumps([[index, *fault] for index, fault in verdicts.faults.items()])
    buffer = io.BytesIO()
    np.savez(
        buffer,
        names=np.frombuffer("\0".join(names).encode("utf-8", "surrogateescape"), np.uint8),
        faults=np.frombuffer(faults.encode("utf-8", "surrogateescape"), np.uint8),
        stats=verdicts.stats,
        digests=verdicts.digests,
        looks=verdicts.looks,
        rows=verdicts.rows,
        limit=verdicts.limit,
    )
    return buffer.getvalue()


def _unpack(packed: bytes) -> tuple[list[str], Verdicts]:
    with np.load(io.BytesIO(packed)) as found:
        words = {name: found[name].tobytes().decode("utf-8", "surrogateescape") for name in ("names", "faults")}
        columns = {name: found[name] for name in ("stats", "digests", "looks", "rows")}
        limit = int(found["limit"])
    faults = {index: (kind, reason) for index, kind, reason in json.loads(words["faults"])}
    return words["names"].split("\0"), Verdicts(**columns, limit=limit, faults=faults)
