"""A source on this machine: a folder, mounted or its own."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from engine.checkpoints.naming import Entry, is_checkpoint_folder
from engine.store.files import CHUNK
from engine.sync.part import Part
from engine.sync.source import (
    FILE_LIMIT,
    Seen,
    Unreachable,
    Unreadable,
    folders_to_list,
    require_same,
    wanted_in,
)


class LocalSource:
    """The checkpoints below `root`; without `must_exist` a root that is not there yet is an empty one."""

    def __init__(self, root: Path, *, must_exist: bool = True) -> None:
        self._root = root
        self._must_exist = must_exist

    @property
    def name(self) -> str:
        return str(self._root)

    @property
    def root(self) -> str:
        return str(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def listing(self) -> list[Entry]:
        try:
            files, folders = _split(self._root)
        except FileNotFoundError:
            if not self._must_exist:
                return []
            raise Unreachable(
                f"no folder at {self._root}", "set source.root to where training writes its checkpoints"
            ) from None
        except OSError as error:
            raise Unreachable(
                f"cannot list {self._root} ({error.strerror})", "check source.root and the folder's rights"
            ) from None
        entries = [self._entry(name) for name in wanted_in("", files)]
        for folder in folders_to_list(folders):
            try:
                names, _ = _split(self._root / folder, None if is_checkpoint_folder(folder) else FILE_LIMIT)
            except OSError as error:
                if is_checkpoint_folder(folder):
                    entries.append(Entry(f"{folder}/", 0, 0.0, f"cannot be listed ({error.strerror})"))
                continue
            entries += [self._entry(f"{folder}/{name}") for name in wanted_in(folder, names)]
        return entries

    def look(self, path: str) -> Seen:
        with self._open(path) as stream:
            modified = os.fstat(stream.fileno()).st_mtime
            digest, size = _hash(stream, "sha256")
        return Seen(digest, size, modified)

    def md5(self, path: str) -> str:
        with self._open(path) as stream:
            return _hash(stream, "md5")[0]

    def fetch(self, path: str, seen: Seen, part: Part) -> None:
        with self._open(path) as stream:
            require_same(_facts(stream), seen)
            stream.seek(part.offset)
            while chunk := _read(stream):
                part.write(chunk)
            require_same(_facts(stream), seen)

    def _open(self, path: str) -> BinaryIO:
        """The file, opened without waiting: a pipe that took a checkpoint's name must not hang the look."""
        try:
            handle = os.open(self._root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Unreadable("gone since it was listed", gone=True) from None
        except PermissionError:
            raise Unreadable("cannot be read (permission denied); chmod 644 it") from None
        except OSError as error:
            raise Unreadable(f"cannot be read ({error.strerror})") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise Unreadable("not a regular file")
        return os.fdopen(handle, "rb")

    def _entry(self, path: str) -> Entry:
        try:
            found = (self._root / path).stat()
        except OSError as error:
            return Entry(path, 0, 0.0, f"cannot be read ({error.strerror})")
        problem = None if stat.S_ISREG(found.st_mode) else "not a regular file"
        return Entry(path, found.st_size, found.st_mtime, problem)


def _read(stream: BinaryIO) -> bytes:
    try:
        return stream.read(CHUNK)
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from None


def _hash(stream: BinaryIO, kind: str) -> tuple[str, int]:
    digest, size = hashlib.new(kind, usedforsecurity=False), 0
    while chunk := _read(stream):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _facts(stream: BinaryIO) -> tuple[int, float]:
    found = os.fstat(stream.fileno())
    return found.st_size, found.st_mtime


def _split(folder: Path, limit: int | None = None) -> tuple[list[str], list[str]]:
    """Names of files and of folders among the first `limit` in a folder; hidden folders are left out."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as names:
        for item in itertools.islice(names, limit):
            if not item.is_dir():
                files.append(item.name)
            elif not item.name.startswith("."):
                folders.append(item.name)
    return sorted(files), sorted(folders)
