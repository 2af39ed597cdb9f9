"""What a source of checkpoints is: a folder somewhere that can be listed, hashed and fetched from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from engine.checkpoints.naming import CHECKPOINT_SUFFIXES, Entry, is_checkpoint_folder
from engine.errors import Failed

if TYPE_CHECKING:
    from engine.sync.part import Part

FOLDER_LIMIT = 200  # top-level folders other than checkpoints_* that are looked into
FILE_LIMIT = 2000  # names read of such a folder: data/ may hold millions


class Unreachable(Failed):
    """The source as a whole cannot be looked at: no such root, no connection, not let in."""

    default_kind = "source_unreachable"


class Unreadable(Exception):
    """One file of the source cannot be read; the text says why, for a `skipped` reason. `gone`: it was there."""

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


@dataclass(frozen=True)
class Seen:
    """A file's content (SHA-256, hex), size in bytes and modification time (seconds since the epoch) at one look."""

    sha256: str
    bytes: int
    modified: float


class Source(Protocol):
    """A place that checkpoints come from. Used as a context manager; every path is relative to its root."""

    @property
    def name(self) -> str:
        """The source, as people write it."""
        ...

    @property
    def root(self) -> str:
        """The root's full path on its machine, known once it was listed."""
        ...

    def listing(self) -> list[Entry]:
        """Every file that could be taken for a checkpoint.

        Raises:
            Unreachable: the root cannot be listed.
        """
        ...

    def look(self, path: str) -> Seen:
        """Hash a file where it lies.

        Raises:
            Unreadable: this file cannot be read, or is gone.
            Unreachable: the source itself cannot be reached any more.
        """
        ...

    def md5(self, path: str) -> str:
        """A file's MD5 (hex), the hash by which people know a checkpoint; raises as `look`."""
        ...

    def fetch(self, path: str, seen: Seen, part: Part) -> None:
        """Copy a file into `part`, behind what that holds already; what arrived is not judged here.

        Raises:
            Unreadable: as `look`; or the file that was opened is not the one `seen`, or was written to
                meanwhile. One that is replaced by a rename is read to its end all the same.
            Unreachable: as `look`.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def require_same(found: tuple[int, float], seen: Seen) -> None:
    """Raise `Unreadable` unless size and time of the opened file are those of the file that was looked at."""
    if found != (seen.bytes, seen.modified):
        raise Unreadable("changed while it was copied; the copy was dropped")


def folders_to_list(folders: Iterable[str]) -> list[str]:
    """Of the root's folders those to look into: every `checkpoints_*`, and a bounded number of others."""
    ordered = sorted(folders, key=lambda name: (not is_checkpoint_folder(name), name))
    return ordered[: FOLDER_LIMIT + sum(map(is_checkpoint_folder, ordered))]


def wanted_in(folder: str, names: Iterable[str]) -> list[str]:
    """Of the names in a top-level folder ("" the root), those to show: all in `checkpoints_*`, else model files."""
    if is_checkpoint_folder(folder):
        return list(names)
    return [name for name in names if name.lower().endswith(CHECKPOINT_SUFFIXES)]
