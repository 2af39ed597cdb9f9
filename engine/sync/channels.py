"""Two things a shell on the source is good for: hashing a file where it lies, and streaming one at full speed."""

from __future__ import annotations

import asyncio
import re
import shlex
import time

from engine.sync.library import asyncssh
from engine.sync.part import Part
from engine.sync.source import Unreadable

_SLOWEST_HASH = 20e6  # bytes a second that a server is trusted to hash, above the idle time-out
_STDERR_BYTES = 4096
_WINDOW = 8 << 20  # bytes on their way: 160 MB/s at 50 ms; on loopback 2 to 8 MiB are alike and 16 are slower
# openssl first: it uses the CPU's SHA instructions (1.6 GB/s here), coreutils' own code does not (0.34 GB/s).
# Asked line by line, so that no file name reaches a shell's or a tool's parser; one login shell serves all questions.
_HASHER = """
has() { command -v "$1" >/dev/null 2>&1; }
if has openssl; then sha256='openssl dgst -sha256 -r' md5='openssl dgst -md5 -r'
elif has sha256sum; then sha256=sha256sum md5=md5sum
else sha256='shasum -a 256' md5='md5 -r'; fi
while IFS= read -r kind && IFS= read -r path; do
  case $kind in sha256) tool=$sha256 ;; md5) tool=$md5 ;; *) echo ready; continue ;; esac
  $tool < "$path" 2>/dev/null || echo failed
done
"""
_ANSWER = re.compile(r"([0-9a-f]{32,64})\b|(failed|ready)$")


class Hasher:
    """A shell at the source that hashes files with its own tools."""

    def __init__(self, process: asyncssh.SSHClientProcess[str]) -> None:
        self._process = process

    @classmethod
    async def start(cls, connection: asyncssh.SSHClientConnection, timeout_s: float) -> Hasher | None:
        """The shell, or None where the server gives none (SFTP only, no login)."""
        try:
            async with asyncio.timeout(timeout_s):
                process = await connection.create_process(
                    shlex.join(["sh", "-c", _HASHER]), stderr=asyncssh.DEVNULL, errors="replace"
                )
                hasher = cls(process)
                return hasher if await hasher._ask("hello", "") == "ready" else None
        except (asyncssh.ChannelOpenError, asyncssh.ProcessError, BrokenPipeError):
            return None

    async def hash(self, kind: str, path: str, size: int, timeout_s: float) -> str | None:
        """`kind` ("sha256", "md5") of a file of about `size` bytes as hex; None where it cannot be had this way."""
        if "\n" in path:
            return None
        async with asyncio.timeout(timeout_s + size / _SLOWEST_HASH):
            answer = await self._ask(kind, path)
        return None if answer in ("failed", "ready", "") else answer

    async def _ask(self, kind: str, path: str) -> str:
        self._process.stdin.write(f"{kind}\n{path}\n")
        while line := await self._process.stdout.readline():
            if found := _ANSWER.match(line.strip()):
                return found[0].split()[0]
        return ""


class _Stream(asyncssh.SSHClientSession[bytes]):
    """Takes a command's output into a part as it comes.

    Hashed and written right here, while the bytes are warm: another thread took half as long again (measured with
    1 GiB from loopback: 2.2 s here, 3.9 s with a thread, whose every batch waits for the interpreter's lock).
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self.stderr = b""
        self.status: int | None = None
        self.ended = asyncio.get_running_loop().create_future()
        self.problem: Exception | None = None
        self.heard = time.monotonic()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.heard = time.monotonic()
        if datatype is not None:
            self.stderr = (self.stderr + data)[:_STDERR_BYTES]
        elif self.problem is None:
            try:
                self._part.write(data)
            except OSError as error:  # raised by who waits: here it would end the connection instead
                self.connection_lost(error)

    def exit_status_received(self, status: int) -> None:
        self.status = status

    def connection_lost(self, exc: Exception | None) -> None:
        self.problem = self.problem or exc
        if not self.ended.done():
            self.ended.set_result(None)

    async def end(self, timeout_s: float) -> None:
        """Wait for the end of the stream.

        Raises:
            TimeoutError: nothing came for `timeout_s`.
            OSError: the part could not be written.
            asyncssh.ConnectionLost: it broke off.
        """
        while not self.ended.done():
            idle_s = time.monotonic() - self.heard
            if idle_s >= timeout_s:
                raise TimeoutError
            await asyncio.wait([self.ended], timeout=timeout_s - idle_s)
        if self.problem is not None:
            raise self.problem
        if self.status is None:
            raise asyncssh.ConnectionLost("the channel closed in the middle")


async def pump(connection: asyncssh.SSHClientConnection, path: str, part: Part, timeout_s: float) -> bool:
    """Stream a file into `part` over a channel of its own, behind what is there.

    Returns:
        False where the server opens no channel for a command.

    Raises:
        Unreadable: the tool there failed on this file.
        TimeoutError: nothing came for `timeout_s`.
        OSError: the part could not be written.
        asyncssh.Error, ConnectionError: the connection broke.
    """
    tool = f"exec tail -c +{part.offset + 1}" if part.offset else "exec cat"
    command = shlex.join(["sh", "-c", f"{tool} < {shlex.quote(path)}"])
    stream = _Stream(part)
    try:
        async with asyncio.timeout(timeout_s):
            channel, _ = await connection.create_session(lambda: stream, command, encoding=None, window=_WINDOW)
    except asyncssh.ChannelOpenError:
        return False
    try:
        channel.write_eof()
        await stream.end(timeout_s)
    finally:
        channel.close()  # not waited for: the connection may have stalled
    if stream.status != 0:
        said = stream.stderr.decode(errors="replace").strip().rpartition(": ")[2]
        raise Unreadable(f"cannot be read ({said or 'the copy failed there'})")
    return True
