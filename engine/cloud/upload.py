"""What goes to a server: the code that git tracks and data that was asked for; of both only what it lacks."""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import json
import os
import stat
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from engine.cloud.provider import Upload
from engine.cloud.ssh_line import Broken, Line, refuse
from engine.errors import Failed, UsageError
from engine.store.files import atomic_writer, sha256_file
from engine.sync.library import asyncssh

_CHUNK = 1 << 18
_ANSWER_S = 600.0  # the host compares what it has
_TELL_S = 5.0
_TELL_BYTES = 20 << 20
# never sent, tracked or listed or not
_SECRET = (".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
           ".netrc", ".pypirc", "credentials", "credentials.json", "kaggle.json", "*.keystore",
           "secrets.toml", "secrets.y*ml", "secrets.json", "secrets.env", "secrets.ini")  # fmt: skip
_SECRET_FOLDERS = (".git", ".ssh", ".aws", ".gnupg", ".kube", ".azure", ".sky")
_HARMLESS = (".env.example", ".env.sample", ".env.template")


@dataclass(frozen=True)
class Item:
    """One file to send; `tag` is the SHA-256 of code, the modification time (ns) of data."""

    path: str
    size: int
    tag: str | int
    mode: int


@dataclass(frozen=True)
class Code:
    """The code as it is now; `id` is the content's name."""

    root: Path
    items: tuple[Item, ...]
    left_out: tuple[str, ...]

    @property
    def id(self) -> str:
        content = json.dumps([[item.path, item.tag, item.mode] for item in self.items])
        return hashlib.sha256(content.encode()).hexdigest()[:20]


def list_code(root: Path, patterns: Sequence[str] | None) -> Code:
    """What is uploaded of the project at `root`.

    Args:
        patterns: globs below the root; None takes what git tracks, as the files are now.

    Raises:
        UsageError: no git repository and no patterns, or nothing matches.
    """
    names = _tracked(root) if patterns is None else _matching(root, patterns)
    left_out = sorted({name for name in names if is_secret(name)})
    items = []
    for name in sorted(set(names) - set(left_out)):
        path = root / name
        if path.is_file():  # a tracked file may be deleted, or be a submodule's folder
            facts = path.stat()
            items.append(
                Item(name, facts.st_size, sha256_file(path), 0o755 if facts.st_mode & stat.S_IXUSR else 0o644)
            )
    if not items:
        raise UsageError(f"nothing to upload from {root}", "check cloud.ssh.files")
    return Code(root, tuple(items), tuple(left_out))


def is_secret(name: str) -> bool:
    """Whether a file of this name stays at home whatever the settings say."""
    path = PurePosixPath(name)
    if set(path.parts[:-1]) & set(_SECRET_FOLDERS):
        return True
    return path.name not in _HARMLESS and any(fnmatch.fnmatch(path.name.lower(), one) for one in _SECRET)


def list_data(source: Path) -> list[Item]:
    """A folder's files, or one file as `.`; links are followed, what is hidden stays.

    Raises:
        UsageError: there is nothing at `source`.
    """
    if source.is_file():
        facts = source.stat()
        return [Item(".", facts.st_size, facts.st_mtime_ns, 0o644)]
    if not source.is_dir():
        raise UsageError(f"no data at {source}", "check the path", kind="not_found")
    items = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if not name.startswith(".") and path.is_file():
                facts = path.stat()
                items.append(Item(path.relative_to(source).as_posix(), facts.st_size, facts.st_mtime_ns, 0o644))
    return items


def list_work(root: Path) -> list[Item]:
    """What SkyPilot uploads of a project: all that git does not ignore; without git, all that is not hidden."""
    try:
        names = _tracked(root, "--others", "--exclude-standard")
    except UsageError:
        return list_data(root)
    found = [(name, (root / name).stat()) for name in names if (root / name).is_file()]
    return [Item(name, facts.st_size, facts.st_mtime_ns, 0o644) for name, facts in found]


def counted(place: str, source: Path, items: Sequence[Item]) -> Upload:
    return Upload(place, source, len(items), sum(item.size for item in items))


def send_files(
    line: Line, kind: str, source: Path, place: str, items: Sequence[Item], say: Callable[[str], None]
) -> dict[str, Any]:
    """Send what the host lacks of `items` to `place` below its root; goes on where a connection broke.

    Args:
        kind: `code` or `data`.

    Returns:
        The host's `{"sent": files, "bytes": theirs}`.

    Raises:
        Failed: a file changed while it was sent.
        UnderstudyError: as `Line.ask`.
    """
    order = {"kind": kind, "place": place}
    order |= {"files": [[item.path, item.size, item.tag, item.mode] for item in items]}  # type: ignore[dict-item]

    async def talk(process: asyncssh.SSHClientProcess[bytes]) -> dict[str, Any]:
        await _write(process, json.dumps(order).encode() + b"\n")
        answer = await _line(process)
        if (wanted := answer.get("wanted")) is None:
            refuse(answer, line.name)
            raise Broken("an answer that is none")
        total = sum(items[number].size - offset for number, offset in wanted)
        told = _Told(say, f"uploading {place}", total)
        for number, offset in wanted:
            path = source if items[number].path == "." else source / items[number].path
            await _send(process, path, items[number], offset, told)
        process.stdin.write_eof()
        answer = await _line(process)
        refuse(answer, line.name)
        return answer

    return line.exchange(("receive",), talk)


def fetch_run(line: Line, run: str, into: Path) -> int:
    """Copy a run's folder home, each file whole or not at all, only what changed; how many files came."""
    folder = into / run

    async def talk(process: asyncssh.SSHClientProcess[bytes]) -> int:
        have = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*") if path.is_file()}
        facts = {name: [found.st_size, found.st_mtime_ns] for name, found in have.items()}
        await _write(process, json.dumps({"run": run, "have": facts}).encode() + b"\n")
        process.stdin.write_eof()
        count = 0
        while said := await _within(process.stdout.readline()):
            header = json.loads(said)
            if error := header.get("error"):
                refuse({"error": error}, line.name)
            name = PurePosixPath(header["path"])
            if name.is_absolute() or ".." in name.parts:
                raise Failed(
                    f"{line.name} sends a file that leads out of its run ({name})", "do not trust that host"
                )
            left, target = int(header["size"]), folder / name
            with atomic_writer(target) as stream:
                while left:
                    chunk = await _within(process.stdout.read(min(left, _CHUNK)))
                    if not chunk:
                        raise Broken("the connection ended in the middle of a file")
                    stream.write(chunk)
                    left -= len(chunk)
            os.utime(target, ns=(header["modified_ns"], header["modified_ns"]))
            count += 1
        await _within(process.wait_closed())
        if process.exit_status != 0:
            raise Broken("the connection ended before the last file")
        return count

    return line.exchange(("send",), talk)


class _Told:
    """Says every few seconds how far a large upload is."""

    def __init__(self, say: Callable[[str], None], what: str, total: int) -> None:
        self._say, self._what, self._total = say, what, total
        self._sent, self._last = 0, time.monotonic()
        if total >= _TELL_BYTES:
            say(f"{what}: {total / 1e6:,.0f} MB")

    def add(self, count: int) -> None:
        self._sent += count
        if time.monotonic() - self._last >= _TELL_S:
            self._last = time.monotonic()
            self._say(f"{self._what}: {self._sent / 1e6:,.0f} of {self._total / 1e6:,.0f} MB")


async def _send(
    process: asyncssh.SSHClientProcess[bytes], path: Path, item: Item, offset: int, told: _Told
) -> None:
    with path.open("rb") as stream:
        stream.seek(offset)
        left = item.size - offset
        while left:
            chunk = stream.read(min(left, _CHUNK))
            if not chunk:
                raise _changed(path)
            await _write(process, chunk)
            left -= len(chunk)
            told.add(len(chunk))
        facts = os.fstat(stream.fileno())
    if facts.st_size != item.size or (isinstance(item.tag, int) and facts.st_mtime_ns != item.tag):
        raise _changed(path)


def _changed(path: Path) -> Failed:
    return Failed(f"{path} changed while it was sent", "launch again when nothing writes to it", kind="changed")


async def _write(process: asyncssh.SSHClientProcess[bytes], content: bytes) -> None:
    process.stdin.write(content)
    await _within(process.stdin.drain())


async def _line(process: asyncssh.SSHClientProcess[bytes]) -> dict[str, Any]:
    said = await _within(process.stdout.readline())
    if not said.endswith(b"\n"):
        raise Broken("the connection ended before the answer")
    return dict(json.loads(said))


async def _within(work: Awaitable[Any]) -> Any:
    """Wait for the host, with a deadline; a dead line ends sooner, by its keep-alive."""
    async with asyncio.timeout(_ANSWER_S):
        return await work


def _tracked(root: Path, *more: str) -> list[str]:
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", *more]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        raise UsageError(
            f"git cannot list the code in {root} ({said.decode(errors='replace').strip() or error})",
            'say what is uploaded: cloud.ssh.files=\'["engine/**", "config.toml", "pyproject.toml"]\'',
        ) from None
    return [name for name in done.stdout.decode(errors="surrogateescape").split("\0") if name]


def _matching(root: Path, patterns: Iterable[str]) -> list[str]:
    found = (path for pattern in patterns for path in root.glob(pattern) if path.is_file())
    return [path.relative_to(root).as_posix() for path in found if "__pycache__" not in path.parts]
