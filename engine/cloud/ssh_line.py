"""The line to one's own GPU server: our program there, asked over a connection that is made anew when it breaks.

Every question may be asked twice with the effect of once, so a broken connection is never more than a delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.resources
import io
import json
import shlex
import zipfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import cache, partial
from typing import Any, Self, TypeVar

from engine.cloud.provider import Outcome
from engine.config.schema import Source as Place
from engine.errors import Busy, Failed, UnderstudyError, UsageError
from engine.sync.library import asyncssh
from engine.sync.source import Unreachable
from engine.sync.ssh import account, connect

T = TypeVar("T")

_TRIES = 4
_BACKOFF_S = 0.5
_ANSWER_S = 120.0  # a host that lists a large folder, or ends a training; a dead line is noticed by its keep-alive
_MISSING, _NO_PYTHON = 97, 127
_ERROR_BYTES = 2000
# the paths are words of the command line and never become part of a script
_ASK = (
    'root=$1 program=$1/bin/$2 python=$3; [ -f "$program" ] || exit 97; shift 3; exec "$python" -I "$program" "$@"'
)
_INSTALL = '[ -d "$1" ] || (umask 077 && mkdir -p "$1"); mkdir -p "$1/bin" && cat >"$1/bin/.$2.$$" && mv -f "$1/bin/.$2.$$" "$1/bin/$2"'
_BROKEN = (asyncssh.DisconnectError, asyncssh.ChannelOpenError, ConnectionError)


class Broken(Exception):
    """The connection ended in the middle of an answer."""


@cache
def program() -> tuple[str, bytes]:
    """The host's program: its name, by its content, and its bytes, a zip that Python runs."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        start = "import sys\nfrom host.answers import main\nsys.exit(main(sys.argv[1:]))\n"
        archive.writestr(zipfile.ZipInfo("__main__.py"), start)
        for entry in sorted(
            importlib.resources.files("engine.cloud.host").iterdir(), key=lambda entry: entry.name
        ):
            if entry.name.endswith(".py"):
                archive.writestr(zipfile.ZipInfo(f"host/{entry.name}"), entry.read_bytes())
    content = packed.getvalue()
    return f"{hashlib.sha256(content).hexdigest()[:16]}.pyz", content


class Line:
    """Questions to the program in `root` on the host `place`. Used as a context manager.

    Args:
        root: below the account's home, or absolute.
        python: what runs the program there.
        install: False leaves the host as it is; then it can `run` and nothing else.
    """

    def __init__(self, place: Place, root: str, python: str = "python3", install: bool = True) -> None:
        self._installs = install
        self._place, self.root, self._python = place, root.removeprefix("~/"), python.removeprefix("~/")
        self._runner = asyncio.Runner()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._reached = False

    @property
    def name(self) -> str:
        return account(self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._runner.run(self._drop())
        finally:
            self._runner.close()

    def ask(self, *words: str, said: object = None, timeout_s: float = _ANSWER_S) -> dict[str, Any]:
        """One question of `engine.cloud.host.answers`.

        Args:
            words: the verb and what it takes after the root.
            said: JSON for its standard input.

        Raises:
            UnderstudyError: not reached; or the host's own refusal, as the error that it is here.
        """

        async def work(connection: asyncssh.SSHClientConnection) -> dict[str, Any]:
            async with asyncio.timeout(timeout_s):
                done = await connection.run(self._command(words), input=json.dumps(said), check=False)
            return self._answer(_code(done.exit_status), str(done.stdout), str(done.stderr))

        return self._run(work)

    def run(self, command: Sequence[str], timeout_s: float) -> Outcome:
        """Run one command there once, in the account's home; only its login is tried again.

        Raises:
            Failed: not reached, broken off, or not done in time.
        """

        async def work(connection: asyncssh.SSHClientConnection) -> Outcome:
            try:
                async with asyncio.timeout(timeout_s):
                    done = await connection.run(shlex.join(command), check=False, errors="replace")
            except TimeoutError:
                raise Failed(
                    f"'{command[0]}' on {self.name} was not done within {timeout_s:g} s", "try it by hand"
                ) from None
            return Outcome(_code(done.exit_status), str(done.stdout), str(done.stderr))

        return self._run(work, tries=1)

    def exchange(
        self, words: Sequence[str], talk: Callable[[asyncssh.SSHClientProcess[bytes]], Awaitable[T]]
    ) -> T:
        """A talk with the program over its binary streams; all of it again when the connection breaks."""

        async def work(connection: asyncssh.SSHClientConnection) -> T:
            async with asyncio.timeout(self._place.timeout_s):
                process = await connection.create_process(self._command(words), encoding=None)
            try:
                return await talk(process)
            except (Broken, BrokenPipeError, asyncssh.ConnectionLost):
                await self._closed(process)
                if process.exit_status is not None:
                    self._answer(process.exit_status, "", (await process.stderr.read()).decode(errors="replace"))
                raise
            finally:
                process.close()

        return self._run(work)

    def follow(self, *words: str) -> Iterator[bytes]:
        """What a verb that takes an offset as its second word after the root writes, over any number of breaks."""
        verb, name, offset, *rest = words
        place = int(offset)
        while True:
            process = self._run(partial(self._begin, words=(verb, name, str(place), *rest)))
            try:
                while chunk := self._runner.run(process.stdout.read(1 << 16)):
                    place += len(chunk)
                    yield chunk
                self._runner.run(self._closed(process))
            except _BROKEN:
                pass  # the next one goes on behind what came
            finally:
                process.close()
            if process.exit_status == 0:
                return
            self._runner.run(self._drop())

    async def _closed(self, process: asyncssh.SSHClientProcess[bytes]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._place.timeout_s):
                await process.wait_closed()

    async def _begin(
        self, connection: asyncssh.SSHClientConnection, words: Sequence[str]
    ) -> asyncssh.SSHClientProcess[bytes]:
        async with asyncio.timeout(self._place.timeout_s):
            return await connection.create_process(self._command(words), encoding=None, stderr=asyncssh.DEVNULL)

    # -- connection

    def _run(
        self, work: Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, T]], tries: int = _TRIES
    ) -> T:
        try:
            return self._runner.run(self._persist(work, tries))
        except UnderstudyError as error:
            raise self._ours(error) from None

    async def _persist(
        self, work: Callable[[asyncssh.SSHClientConnection], Coroutine[Any, Any, T]], tries: int
    ) -> T:
        problem = ""
        for attempt in range(tries):
            if attempt:
                await asyncio.sleep(_BACKOFF_S * 2 ** (attempt - 1))
            fresh = self._connection is None
            try:
                if self._connection is None:
                    self._connection = await connect(self._place)
                    if self._installs:
                        await self._install(self._connection)
                    self._reached = True
                return await work(self._connection)
            except TimeoutError:
                problem = f"nothing came for {self._place.timeout_s:g} s"
            except (*_BROKEN, Broken) as error:
                problem = str(error) or "connection lost"
            except Unreachable as error:
                if not self._reached or error.kind != Unreachable.default_kind:
                    raise
                problem = error.message
            await self._drop()
            if tries == 1 and not fresh:  # it had died unnoticed: nothing was run on it
                return await self._persist(work, 2)
        raise Unreachable(
            f"the connection to {self.name} broke off {tries} times ({problem})",
            "check the network; what runs there goes on",
        )

    async def _install(self, connection: asyncssh.SSHClientConnection) -> None:
        """See to it that this version of the program is there, under its content's name."""
        name, content = program()
        async with asyncio.timeout(self._place.timeout_s):
            there = await connection.run(_shell('[ -f "$1/bin/$2" ]', self.root, name), check=False)
            if there.exit_status == 0:
                return
            done = await connection.run(
                _shell(_INSTALL, self.root, name), input=content, encoding=None, check=False
            )
        if done.exit_status:
            said = _words(done.stderr).strip().rpartition(": ")[2]
            raise Failed(
                f"cannot write into {self.root} on {self.name} ({said or 'no shell there'})",
                "set cloud.ssh.root to a folder of this account, with room",
            )

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await connection.wait_closed()

    def _command(self, words: Sequence[str]) -> str:
        verb, *rest = words
        return _shell(_ASK, self.root, program()[0], self._python, verb, self.root, *rest)

    def _answer(self, code: int, out: str, error: str) -> dict[str, Any]:
        """The program's last line as JSON."""
        if code == _NO_PYTHON:
            raise UsageError(
                f"no '{self._python}' on {self.name}",
                "install Python 3 there, or set cloud.ssh.python",
                kind="no_python",
            )
        try:
            answer = dict(json.loads(out.strip().rpartition("\n")[2]))
        except ValueError:
            if code == _MISSING:
                raise Broken("our program is gone from the host") from None
            said = error[-_ERROR_BYTES:].strip().rpartition("\n")[2]
            raise Failed(f"the program on {self.name} failed ({said or f'code {code}'})", "try again") from None
        refuse(answer, self.name)
        return answer

    def _ours(self, error: UnderstudyError) -> UnderstudyError:
        """The same error, in the words of this section's settings."""
        there = f"source.kind=ssh source.host={self._place.host} source.port={self._place.port}"
        if self._place.known_hosts is not None:
            there += f" source.known_hosts={self._place.known_hosts}"
        hint = error.hint.replace("source.host", "cloud.ssh.address").replace("source.", "cloud.ssh.")
        error.hint = f"{hint} {shlex.join(there.split())}" if "sync --pin" in hint else hint
        error.message = error.message.replace("source.", "cloud.ssh.")
        return error


def refuse(answer: dict[str, Any], name: str) -> None:
    """Raise the host's refusal, if the answer is one."""
    if problem := answer.get("error"):
        kinds: dict[str, type[UnderstudyError]] = {"busy": Busy, "usage": UsageError}
        hint = {"busy": "see: python -m engine cloud status", "still_running": "look at it there by hand"}
        raise kinds.get(problem["kind"], Failed)(
            f"{name}: {problem['message']}", hint.get(problem["kind"], ""), kind=problem["kind"]
        )


def _words(said: bytes | str | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


def _code(status: int | None) -> int:
    """An exit status; without one the connection has ended before the command."""
    if status is None:
        raise Broken("the connection ended before the command did")
    return status


def _shell(script: str, *words: str) -> str:
    return shlex.join(["sh", "-c", script, "sh", *words])
