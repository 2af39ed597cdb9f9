"""Files are immutable and names atomic: write beside, fsync, verify, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import Failed

CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """Hashes (hex) and size in bytes of one file's content."""

    sha256: str
    md5: str
    bytes: int


def digest_file(path: Path) -> Digest:
    """SHA-256 and MD5 of a file, read once."""
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Digest(sha256.hexdigest(), md5.hexdigest(), size)


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_writer(path: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A binary stream whose content gets the name `path` only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(scratch).chmod(mode)
        Path(scratch).replace(path)
        fsync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(scratch).unlink()
        raise


def atomic_write(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Give `path` this content, whole or not at all."""
    with atomic_writer(path, mode) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def create_once(path: Path, content: bytes, mode: int = 0o644) -> bool:
    """Give `path` this content unless the name is taken, by another process or computer too.

    Returns:
        Whether this call made the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(scratch).chmod(mode)
        try:
            os.link(scratch, path)
        except FileExistsError:
            return False
        fsync_folder(path.parent)
        return True
    finally:
        Path(scratch).unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any | None:
    """The JSON value in `path`, or None where there is no such file.

    Raises:
        Failed: the file is there but is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise Failed(f"{path} is damaged", "move it away; it is made again", kind="damaged") from None


def copy_verified(source: Path, target: Path, sha256: str) -> None:
    """Copy `source` to the new name `target` and read it back against `sha256`.

    Raises:
        Failed: the source or the copy does not have that hash; no file is left behind.
        FileExistsError: `target` is taken.
    """
    if target.exists():
        raise FileExistsError(target)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with source.open("rb") as reading, scratch.open("wb") as writing:
            while chunk := reading.read(CHUNK):
                writing.write(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        if sha256_file(scratch) != sha256:
            raise Failed(f"{source.name} does not have the content its name promises", "restore it from a backup")
        os.link(scratch, target)
        fsync_folder(target.parent)
    finally:
        scratch.unlink(missing_ok=True)
