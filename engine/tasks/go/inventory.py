"""Which games lie in the folders, files and archives that a person names: each by the digest of its text."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from engine.errors import UsageError

ENDING = ".sgf"
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_LARGEST = 8 * 1024 * 1024  # no record of one game is larger; a bomb in an archive is not unpacked further
_GAME = re.compile(rb"\(\s*;")
_NEXT_GAME = re.compile(rb"\)\s*\(\s*;")
# a value that never ends reaches to the end: nothing is tried twice, whatever the text
_BRACKETS = re.compile(rb"\[[^\]\\]*(?:\\.[^\]\\]*)*\]?|[()]", re.DOTALL)

# what the readers of archives raise: RuntimeError for a password or an unknown method
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Where a game's text lies: `length` bytes at `offset` of `path`."""

    path: str
    offset: int
    length: int


@dataclass(slots=True)
class Inventory:
    """The games that were found.

    `games` maps a text's digest to the game's name and place, in the order of the names; `skipped` lists what
    cannot be a game, and each text that is there a second time.
    """

    games: dict[str, tuple[str, Place]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    files: int = 0

    def text(self, digest: str) -> bytes:
        """A game's text, as it was when the inventory was made.

        Raises:
            ValueError: its file has changed since.
        """
        place = self.games[digest][1]
        with Path(place.path).open("rb") as file:
            file.seek(place.offset)
            text = file.read(place.length)
        if text_digest(text) != digest:
            raise ValueError("the file has changed since the games were counted")
        return text


def text_digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=12).hexdigest()


@contextlib.contextmanager
def take_inventory(paths: Sequence[str | Path]) -> Iterator[Inventory]:
    """Look through folders (for `*.sgf` and archives), files and archives.

    The texts of archives lie in one file that is removed when the block ends.

    Raises:
        UsageError: a path does not exist, is neither SGF nor an archive, or an archive cannot be read.
    """
    with tempfile.NamedTemporaryFile(prefix="understudy-go-", suffix=ENDING) as spool:
        found = Inventory()
        for given in paths:
            path = Path(given).expanduser()
            if path.is_dir():
                for file in sorted(_files(path)):
                    _take_file(found, file, _plain(file.relative_to(path.parent).as_posix()), spool)
            elif path.is_file():
                if not path.name.lower().endswith((ENDING, *ARCHIVES)):
                    raise UsageError(
                        f"{path} is neither an SGF file nor an archive", f"archives: {', '.join(ARCHIVES)}"
                    )
                _take_file(found, path, _plain(path.name), spool)
            else:
                raise UsageError(f"no file or folder {path}", "name folders, .sgf files or archives of games")
        spool.flush()
        yield found


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if name.lower().endswith((ENDING, *ARCHIVES)):
                yield Path(root) / name


def _plain(name: str) -> str:
    """A name as UTF-8 can write it: bytes of another encoding as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _take_file(found: Inventory, path: Path, name: str, spool: IO[bytes]) -> None:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):  # to read a pipe would wait for ever
            found.skipped.append({"path": name, "reason": "no regular file"})
            return
        if path.name.lower().endswith(ARCHIVES):
            _take_archive(found, path, name, spool)
            return
        size = about.st_size
        text = path.read_bytes() if size <= _LARGEST else b""
    except OSError as error:
        found.skipped.append({"path": name, "reason": f"cannot be read: {error.strerror}"})
        return
    if size > _LARGEST:
        found.skipped.append({"path": name, "reason": f"larger than {_LARGEST // 2**20} MB: not a game's record"})
        return
    _take_text(found, name, text, str(path.absolute()), 0)


def _take_archive(found: Inventory, path: Path, name: str, spool: IO[bytes]) -> None:
    try:
        for member, text in _members(found, path, name):
            offset = spool.tell()
            spool.write(text)
            _take_text(found, f"{name}/{member}", text, spool.name, offset)
    except _BROKEN as error:
        raise UsageError(
            f"the archive {path} cannot be read ({' '.join(str(error).split())[:100]})", "fetch or pack it again"
        ) from None


def _members(found: Inventory, path: Path, name: str) -> Iterator[tuple[str, bytes]]:
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if _wanted(found, name, member.filename, member.file_size):
                    yield _plain(member.filename), archive.read(member)
        return
    with tarfile.open(path) as archive:
        for entry in archive:
            if entry.isfile() and _wanted(found, name, entry.name, entry.size):
                handle = archive.extractfile(entry)
                assert handle is not None
                yield _plain(entry.name), handle.read()


def _wanted(found: Inventory, archive: str, member: str, size: int) -> bool:
    if not member.lower().endswith(ENDING):
        return False
    if size > _LARGEST:
        reason = f"larger than {_LARGEST // 2**20} MB: not a game's record"
        found.skipped.append({"path": f"{archive}/{_plain(member)}", "reason": reason})
        return False
    return True


def _take_text(found: Inventory, name: str, text: bytes, path: str, offset: int) -> None:
    found.files += 1
    if not text.strip():
        found.skipped.append({"path": name, "reason": "empty"})
        return
    for index, (start, end) in enumerate(_games(text)):
        part = text[start:end]
        digest = text_digest(part)
        label = name if index == 0 and end >= len(text) else f"{name}#{index + 1}"
        if digest in found.games:
            found.skipped.append({"path": label, "reason": f"the same text as {found.games[digest][0]}"})
        else:
            found.games[digest] = (label, Place(path, offset + start, end - start))


def _games(text: bytes) -> list[tuple[int, int]]:
    """Where each game of a collection begins and ends; one game is the whole text."""
    if not _NEXT_GAME.search(text):
        return [(0, len(text))]
    ends, depth = [], 0
    for match in _BRACKETS.finditer(text):
        if match[0] == b"(":
            depth += 1
        elif match[0] == b")":
            depth -= 1
            if depth == 0:
                ends.append(match.end())
    if ends and _GAME.search(text, ends[-1]):  # the last one is torn: a game too, to be named as such
        ends.append(len(text))
    if len(ends) < 2:
        return [(0, len(text))]
    return list(zip([0, *ends[:-1]], ends, strict=True))
