"""A source on another machine, over SSH: listed by SFTP, hashed there, fetched through a channel or SFTP."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import asyncssh

from engine.checkpoints.naming import Entry, is_checkpoint_folder
from engine.config.schema import Source as Place
from engine.store.files import CHUNK
from engine.sync.source import FILE_LIMIT, Seen, Unreachable, Unreadable, folders_to_list, wanted_in
from engine.sync.ssh import account, connect

T = TypeVar("T")

_TRIES = 4
_STALLS = 2  # each costs a whole idle time-out
_BACKOFF_S = 0.25
_SLOWEST_HASH = 20e6  # bytes a second that a server is trusted to hash, above the idle time-out
_FOLDERS_AT_ONCE = 8
_BROKEN = (asyncssh.DisconnectError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, ConnectionError)
# Read through a redirect: no file name reaches a tool's own parser, and both families print the bare hash.
_HASHES = (
    "if command -v sha256sum >/dev/null 2>&1; then sha256sum < {0} && md5sum < {0}; "
    "else shasum -a 256 < {0} && md5 -r < {0}; fi"
)


class RemoteSource:
    """The checkpoints below `source.root` on `source.host`. One connection, made again when it breaks."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._runner = asyncio.Runner()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._files: asyncssh.SFTPClient | None = None
        self._root: str | None = None
        self._shell = False  # becomes true when a command there was seen to work

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

    def digest(self, path: str) -> Seen:
        return self._run(lambda files: self._digest(files, path))

    def fetch(self, path: str, target: Path) -> None:
        self._run(lambda files: self._fetch(files, path, target))

    # -- connection

    def _run(self, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]]) -> T:
        return self._runner.run(self._persist(work))

    async def _persist(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Do the work, again over a new connection with growing pauses when the old one breaks or stalls."""
        problem, stalls, attempts = "", 0, 0
        had_one = self._connection is not None
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
            await self._drop()
        raise Unreachable(
            f"the connection to {account(self._place)} broke off {attempts} times ({problem})",
            "check the network; what was fetched is kept, and the next look goes on from there",
        )

    async def _connected(self) -> asyncssh.SFTPClient:
        if self._files is not None:
            return self._files
        self._connection = await connect(self._place)
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

    async def _digest(self, files: asyncssh.SFTPClient, path: str) -> Seen:
        try:
            async with asyncio.timeout(self._place.timeout_s):
                attributes = await files.stat(self._path(path))
        except asyncssh.SFTPError as error:
            raise _file_problem(error) from None
        if not stat.S_ISREG(attributes.permissions or 0):
            raise Unreadable("not a regular file")
        size, modified = int(attributes.size or 0), float(attributes.mtime or 0)
        hashes = await self._hash_there(path, size)
        if hashes is None:
            return await self._hash_here(files, path, modified)
        return Seen(*hashes, size, modified)

    async def _hash_there(self, path: str, size: int) -> tuple[str, str] | None:
        """SHA-256 and MD5 by the server's own tools; None where there is no shell, or no such tool."""
        assert self._connection is not None
        script = _HASHES.format(shlex.quote(self._path(path)))
        try:
            async with asyncio.timeout(self._place.timeout_s + size / _SLOWEST_HASH):
                done = await self._connection.run(
                    shlex.join(["sh", "-c", script]), stdin=asyncssh.DEVNULL, errors="replace"
                )
        except asyncssh.ChannelOpenError:
            return None
        output = str(done.stdout)
        sha256 = re.search(r"^([0-9a-f]{64})\b", output, re.MULTILINE)
        md5 = re.search(r"^([0-9a-f]{32})\b", output, re.MULTILINE)
        if done.exit_status != 0 or not sha256 or not md5:
            return None
        self._shell = True
        return sha256[1], md5[1]

    async def _hash_here(self, files: asyncssh.SFTPClient, path: str, modified: float) -> Seen:
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0

        def take(chunk: bytes) -> None:
            nonlocal size
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)

        await self._stream(files, path, 0, take)
        return Seen(sha256.hexdigest(), md5.hexdigest(), size, modified)

    async def _fetch(self, files: asyncssh.SFTPClient, path: str, target: Path) -> None:
        with target.open("ab") as writing:

            def take(chunk: bytes) -> None:
                writing.write(chunk)

            if not self._shell or not await self._cat(path, writing.tell(), take):
                await self._stream(files, path, writing.tell(), take)
            writing.flush()
            os.fsync(writing.fileno())

    async def _cat(self, path: str, offset: int, take: Callable[[bytes], None]) -> bool:
        """Stream the file over a channel of its own; false where the server opens none for a command."""
        assert self._connection is not None
        tool = f"exec tail -c +{offset + 1}" if offset else "exec cat"
        command = shlex.join(["sh", "-c", f"{tool} < {shlex.quote(self._path(path))}"])
        try:
            async with asyncio.timeout(self._place.timeout_s):
                process: asyncssh.SSHClientProcess[bytes] = await self._connection.create_process(
                    command, stdin=asyncssh.DEVNULL, encoding=None
                )
        except asyncssh.ChannelOpenError:
            return False
        try:
            while True:
                async with asyncio.timeout(self._place.timeout_s):
                    chunk = await process.stdout.read(CHUNK)
                if not chunk:
                    break
                take(chunk)
            async with asyncio.timeout(self._place.timeout_s):
                done = await process.wait()
        finally:
            process.close()  # not waited for: the connection may have stalled
        if done.exit_status is None:
            raise asyncssh.ConnectionLost("the channel closed in the middle")
        if done.exit_status != 0:
            stderr = done.stderr.decode(errors="replace") if isinstance(done.stderr, bytes) else ""
            said = stderr.strip().rpartition(": ")[2]
            raise Unreadable(f"cannot be read ({said or 'the copy failed there'})")
        return True

    async def _stream(
        self, files: asyncssh.SFTPClient, path: str, offset: int, take: Callable[[bytes], None]
    ) -> None:
        try:
            async with asyncio.timeout(self._place.timeout_s):
                reading = await files.open(self._path(path), "rb")
            async with reading:
                while True:
                    async with asyncio.timeout(self._place.timeout_s):
                        chunk = await reading.read(CHUNK, offset)
                    if not chunk:
                        return
                    assert isinstance(chunk, bytes)
                    take(chunk)
                    offset += len(chunk)
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
