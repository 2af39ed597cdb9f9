"""A source on another machine, over SSH: listed by SFTP, hashed there, fetched through a channel or SFTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from engine.checkpoints.naming import Entry, is_checkpoint_folder
from engine.config.schema import Source as Place
from engine.store.files import CHUNK
from engine.sync.channels import Hasher, pump
from engine.sync.library import asyncssh
from engine.sync.part import WINDOW, Part
from engine.sync.source import (
    FILE_LIMIT,
    Seen,
    Unreachable,
    Unreadable,
    folders_to_list,
    require_same,
    wanted_in,
)
from engine.sync.ssh import account, connect

T = TypeVar("T")

_TRIES = 4
_STALLS = 2  # each costs a whole idle time-out
_BACKOFF_S = 0.25
_FOLDERS_AT_ONCE = 8
_BROKEN = (asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, ConnectionError)


class RemoteSource:
    """The checkpoints below `source.root` on `source.host`. One connection, made again when it breaks."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._runner = asyncio.Runner()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._files: asyncssh.SFTPClient | None = None
        self._root: str | None = None
        self._hasher: asyncio.Future[Hasher | None] | None = None

    @property
    def name(self) -> str:
        return f"{account(self._place)}:{self._root or self._place.root}"

    @property
    def root(self) -> str:
        return self._root or str(self._place.root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._runner.run(self._drop())
        finally:
            self._runner.close()

    def listing(self) -> list[Entry]:
        return self._run(self._listing)

    def look(self, path: str) -> Seen:
        return self._run(lambda files: self._look(files, path))

    def md5(self, path: str) -> str:
        return self._run(lambda files: self._md5(files, path))

    def fetch(self, path: str, seen: Seen, part: Part) -> None:
        self._run(lambda files: self._fetch(files, path, seen, part), part)

    # -- connection

    def _run(self, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]], part: Part | None = None) -> T:
        return self._runner.run(self._persist(work, part))

    async def _persist(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]], part: Part | None) -> T:
        """Do the work, again over a new connection with growing pauses when the old one breaks or stalls.

        A copy that got a window further begins to count anew, so that a long one outlives more breaks.
        """
        problem, stalls, attempts, breaks = "", 0, 0, 0
        had_one = self._connection is not None
        reached = part.offset if part else 0
        while attempts < _TRIES and stalls < _STALLS:
            if attempts:
                await asyncio.sleep(_BACKOFF_S * 2 ** (attempts - 1))
            attempts += 1
            try:
                files = await self._connected()
            except Unreachable as error:
                if not had_one or error.kind != Unreachable.default_kind:
                    raise
                problem = error.message
                continue
            had_one = True
            try:
                return await work(files)
            except TimeoutError:
                problem, stalls = f"nothing came for {self._place.timeout_s:g} s", stalls + 1
            except _BROKEN as error:
                problem = str(error) or "connection lost"
            breaks += 1
            await self._drop()
            if part is not None:
                part.reconnects += 1
                if part.offset - reached >= WINDOW:
                    reached, attempts, stalls = part.offset, 0, 0
        raise Unreachable(
            f"the connection to {account(self._place)} broke off {breaks} times ({problem})",
            "check the network; what was fetched is kept, and the next look goes on from there",
        )

    async def _connected(self) -> asyncssh.SFTPClient:
        if self._files is not None:
            return self._files
        self._connection = await connect(self._place)
        # Started beside SFTP: a login shell with a long profile takes a tenth of a second and more.
        self._hasher = asyncio.ensure_future(Hasher.start(self._connection, self._place.timeout_s))
        try:
            async with asyncio.timeout(self._place.timeout_s):
                # Names that are not UTF-8 are never ones that are looked for, but must not end the listing.
                files = await self._connection.start_sftp_client(path_errors="replace")
                self._root = self._root or await self._find_root(files)
        except (TimeoutError, *_BROKEN) as error:
            await self._drop()
            raise Unreachable(
                f"{account(self._place)} stopped answering after the login ({str(error) or 'time-out'})",
                "check the host's load and network",
            ) from None
        except (asyncssh.ChannelOpenError, asyncssh.SFTPError) as error:
            await self._drop()
            raise Unreachable(
                f"{account(self._place)} offers no SFTP ({error})",
                "enable the sftp subsystem in its sshd_config",
            ) from None
        self._files = files
        return files

    async def _drop(self) -> None:
        connection, self._connection, self._files = self._connection, None, None
        if self._hasher is not None:
            self._hasher.cancel()
            await asyncio.gather(self._hasher, return_exceptions=True)
            self._hasher = None
        if connection is None:
            return
        connection.abort()
        try:
            async with asyncio.timeout(1.0):
                await connection.wait_closed()
        except TimeoutError:
            return

    async def _find_root(self, files: asyncssh.SFTPClient) -> str:
        root = str(self._place.root)
        if root == "~" or root.startswith("~/"):
            root = root[2:] or "."  # SFTP starts in the account's home
        try:
            found = await files.realpath(root)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            raise self._no_root() from None
        return found.decode() if isinstance(found, bytes) else found

    def _no_root(self) -> Unreachable:
        return Unreachable(
            f"no folder {self._place.root} on {account(self._place)}",
            "set source.root to where training writes its checkpoints",
        )

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    # -- listing

    async def _listing(self, files: asyncssh.SFTPClient) -> list[Entry]:
        try:
            entries, folders = await self._folder(files, "", None)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory):
            raise self._no_root() from None
        except asyncssh.SFTPError as error:
            if isinstance(error, _BROKEN):
                raise
            raise Unreachable(
                f"cannot list {self.name} ({error.reason})", "check source.root and the folder's rights"
            ) from None
        at_once = asyncio.Semaphore(_FOLDERS_AT_ONCE)

        async def inside(folder: str) -> list[Entry]:
            kept = is_checkpoint_folder(folder)
            async with at_once:
                try:
                    return (await self._folder(files, folder, None if kept else FILE_LIMIT))[0]
                except asyncssh.SFTPError as error:
                    if isinstance(error, _BROKEN):
                        raise
                    return [Entry(f"{folder}/", 0, 0.0, f"cannot be listed ({error.reason})")] if kept else []

        for found in await asyncio.gather(*map(inside, folders_to_list(folders))):
            entries += found
        return entries

    async def _folder(
        self, files: asyncssh.SFTPClient, folder: str, limit: int | None
    ) -> tuple[list[Entry], list[str]]:
        """The files to show of one folder, and the names of the folders in it."""
        seen: dict[str, asyncssh.SFTPAttrs] = {}
        names = files.scandir(self._path(folder) if folder else str(self._root))
        while limit is None or len(seen) < limit:
            async with asyncio.timeout(self._place.timeout_s):
                item = await anext(names, None)
            if item is None:
                break
            name = str(item.filename)
            if name not in (".", ".."):
                seen[name] = item.attrs
        prefix = f"{folder}/" if folder else ""
        shown = set(wanted_in(folder, seen))
        entries: list[Entry] = []
        folders: list[str] = []
        for name, attributes in sorted(seen.items()):
            kind = stat.S_IFMT(attributes.permissions or 0)
            problem = None
            if kind == stat.S_IFLNK and (name in shown or not folder):
                try:
                    async with asyncio.timeout(self._place.timeout_s):
                        attributes = await files.stat(self._path(prefix + name))
                    kind = stat.S_IFMT(attributes.permissions or 0)
                except asyncssh.SFTPError as error:
                    if isinstance(error, _BROKEN):
                        raise
                    problem = f"cannot be read ({error.reason})"
            if kind == stat.S_IFDIR:
                if not name.startswith("."):
                    folders.append(name)
            elif name in shown:
                problem = problem or (None if kind == stat.S_IFREG else "not a regular file")
                entries.append(Entry(prefix + name, attributes.size or 0, float(attributes.mtime or 0), problem))
        return entries, folders

    # -- one file

    async def _look(self, files: asyncssh.SFTPClient, path: str) -> Seen:
        size, modified = await self._facts(files.stat(self._path(path)))
        if (digest := await self._hash_there("sha256", path, size)) is None:
            digest, size = await self._hash_here(files, "sha256", path)
        return Seen(digest, size, modified)

    async def _md5(self, files: asyncssh.SFTPClient, path: str) -> str:
        size, _ = await self._facts(files.stat(self._path(path)))
        return await self._hash_there("md5", path, size) or (await self._hash_here(files, "md5", path))[0]

    async def _hash_there(self, kind: str, path: str, size: int) -> str | None:
        if self._hasher is None or (hasher := await self._hasher) is None:
            return None
        return await hasher.hash(kind, self._path(path), size, self._place.timeout_s)

    async def _hash_here(self, files: asyncssh.SFTPClient, kind: str, path: str) -> tuple[str, int]:
        digest, size = hashlib.new(kind, usedforsecurity=False), 0
        async with self._opened(files, path) as reading:
            async for chunk in self._chunks(reading, 0):
                digest.update(chunk)
                size += len(chunk)
        return digest.hexdigest(), size

    async def _fetch(self, files: asyncssh.SFTPClient, path: str, seen: Seen, part: Part) -> None:
        async with self._opened(files, path) as reading:
            require_same(await self._facts(reading.stat()), seen)
            if not await self._pump(path, part):
                async for chunk in self._chunks(reading, part.offset):
                    part.write(chunk)
            require_same(await self._facts(reading.stat()), seen)

    async def _pump(self, path: str, part: Part) -> bool:
        assert self._connection is not None
        if self._hasher is None or await self._hasher is None:
            return False
        return await pump(self._connection, self._path(path), part, self._place.timeout_s)

    async def _facts(self, asked: Awaitable[asyncssh.SFTPAttrs]) -> tuple[int, float]:
        """Size and modification time of a regular file."""
        with _file_problems():
            async with asyncio.timeout(self._place.timeout_s):
                attributes = await asked
        if not stat.S_ISREG(attributes.permissions or 0):
            raise Unreadable("not a regular file")
        return int(attributes.size or 0), float(attributes.mtime or 0)

    @contextlib.asynccontextmanager
    async def _opened(self, files: asyncssh.SFTPClient, path: str) -> AsyncIterator[asyncssh.SFTPClientFile]:
        with _file_problems():
            async with asyncio.timeout(self._place.timeout_s):
                reading = await files.open(self._path(path), "rb")
        yield reading
        async with asyncio.timeout(self._place.timeout_s):  # after an error the connection's end closes it
            await reading.close()

    async def _chunks(self, reading: asyncssh.SFTPClientFile, offset: int) -> AsyncIterator[bytes]:
        with _file_problems():
            while True:
                async with asyncio.timeout(self._place.timeout_s):
                    chunk = await reading.read(CHUNK, offset)
                if not chunk:
                    return
                assert isinstance(chunk, bytes)
                yield chunk
                offset += len(chunk)


@contextlib.contextmanager
def _file_problems() -> Iterator[None]:
    """An SFTP error about one file, said as such; a broken connection passes."""
    try:
        yield
    except asyncssh.SFTPError as error:
        raise _file_problem(error) from None


def _file_problem(error: asyncssh.SFTPError) -> Exception:
    if isinstance(error, _BROKEN):
        return error
    if isinstance(error, asyncssh.SFTPNoSuchFile | asyncssh.SFTPNoSuchPath):
        return Unreadable("gone since it was listed", gone=True)
    if isinstance(error, asyncssh.SFTPPermissionDenied):
        return Unreadable("cannot be read (permission denied); chmod 644 it")
    return Unreadable(f"cannot be read ({error.reason})")
