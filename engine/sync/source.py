"""What a source of checkpoints is: a folder somewhere that can be listed, hashed and fetched from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from engine.checkpoints.naming import CHECKPOINT_SUFFIXES, Entry, is_checkpoint_folder
from engine.config import Settings
from engine.errors import Failed, UsageError
from engine.store.workspace import Workspace

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
    """A file's hashes (hex), size in bytes and modification time (seconds since the epoch) at one look."""

    sha256: str
    md5: str
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

    def digest(self, path: str) -> Seen:
        """Hash a file where it lies.

        Raises:
            Unreadable: this file cannot be read, or is gone.
            Unreachable: the source itself cannot be reached any more.
        """
        ...

    def fetch(self, path: str, target: Path) -> None:
        """Copy a file's bytes to `target`, going on behind what is there already; fsynced, not verified.

        Raises:
            Unreadable, Unreachable: as `digest`.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(workspace: Workspace, settings: Settings) -> Source:
    """The source that the settings name; asyncssh is imported only for `source.kind = "ssh"`.

    Raises:
        UsageError: `source.kind` is ssh and `source.host` or `source.root` is not set.
    """
    source = settings.source
    if source.kind == "local":
        from engine.sync.local import LocalSource

        explicit = source.root is not None
        root = Path(source.root).expanduser() if source.root is not None else settings.checkpoints_root
        return LocalSource(root, must_exist=explicit)
    for key, value in (("source.host", source.host), ("source.root", source.root)):
        if not value:
            raise UsageError(
                f"{key} is not set, and source.kind is ssh", f"set {key} in config.toml", kind="missing_setting"
            )
    from engine.sync.remote import RemoteSource

    return RemoteSource(source)


def folders_to_list(folders: Iterable[str]) -> list[str]:
    """Of the root's folders those to look into: every `checkpoints_*`, and a bounded number of others."""
    ordered = sorted(folders, key=lambda name: (not is_checkpoint_folder(name), name))
    return ordered[: FOLDER_LIMIT + sum(map(is_checkpoint_folder, ordered))]


def wanted_in(folder: str, names: Iterable[str]) -> list[str]:
    """Of the names in a top-level folder ("" the root), those to show: all in `checkpoints_*`, else model files."""
    if is_checkpoint_folder(folder):
        return list(names)
    return [name for name in names if name.lower().endswith(CHECKPOINT_SUFFIXES)]
