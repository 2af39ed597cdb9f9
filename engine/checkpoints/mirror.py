"""A second folder for checkpoints that may vanish (a mount, a network drive) and come back."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.errors import Failed
from engine.store.files import CHUNK, atomic_write, atomic_writer

DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts Google Drive
_MARK = ".mirrors"
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Mirror:
    """One mirror of the folder `of`.

    Args:
        needs: a folder that must exist for the mirror to be made (the mount of a drive).

    A mirror that was seen once is noted in `of/.mirrors` and never made anew: when it is gone, its drive is.
    """

    def __init__(self, folder: Path, of: Path, needs: Path | None = None) -> None:
        self.folder = folder
        self._of, self._needs = of, needs
        self._told = ""

    def attempt(self, action: Callable[[Path], T], otherwise: T) -> T:
        """`action(folder)` when the mirror is there, else `otherwise`; trouble is said once, and is no error."""
        try:
            if away := self._away():
                self._tell(f"mirror {self.folder} is away ({away}); it gets what it misses when it is back")
                return otherwise
            result = action(self.folder)
        except (OSError, Failed) as error:
            self._tell(f"mirror {self.folder} cannot be used ({error}); tried again at the next save")
            return otherwise
        if self._told:
            _log.warning("mirror %s is back", self.folder)
            self._told = ""
        return result

    def fill(self, wanted: list[tuple[Path, str | None]]) -> None:
        """Copy what the mirror lacks, each checkpoint verified against its SHA-256, its JSON after it."""

        def copy_missing(folder: Path) -> None:
            for source, sha256 in wanted:
                facts, target = source.with_suffix(".json"), folder / source.name
                if _same_size(source, target) and (not facts.exists() or _same(facts, folder / facts.name)):
                    continue
                (folder / facts.name).unlink(missing_ok=True)
                try:
                    _copy(source, target, sha256)
                except Failed as error:  # the others are still worth having
                    _log.warning("%s", error.message)
                    continue
                if facts.exists():
                    _copy(facts, folder / facts.name, None)

        self.attempt(copy_missing, None)

    def _away(self) -> str:
        if self.folder.is_dir():
            self._mark()
            return ""
        if self._needs is not None and not self._needs.is_dir():
            return f"{self._needs} is not mounted"
        if str(self.folder.absolute()) in self._marked():
            return "it was there before"
        if not self.folder.parent.parent.is_dir():
            return f"{self.folder.parent} does not exist"
        self.folder.mkdir(parents=True)
        self._mark()
        return ""

    def _marked(self) -> list[str]:
        try:
            return (self._of / _MARK).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []

    def _mark(self) -> None:
        known, name = self._marked(), str(self.folder.absolute())
        if name not in known:
            atomic_write(self._of / _MARK, "\n".join([*known, name]) + "\n")

    def _tell(self, sentence: str) -> None:
        if sentence != self._told:
            self._told = sentence
            _log.warning("%s", sentence)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except FileNotFoundError:
        return False


def _same_size(one: Path, other: Path) -> bool:
    return other.is_file() and one.stat().st_size == other.stat().st_size


def _copy(source: Path, target: Path, sha256: str | None) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as reading, atomic_writer(target) as writing:
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            writing.write(chunk)
        if sha256 is not None and digest.hexdigest() != sha256:
            raise Failed(f"{source.name} is damaged and was not mirrored", "")
