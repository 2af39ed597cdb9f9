"""More hosts, over SSH: each with its own connection, deadline and state, none waiting for another."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.config.schema import Host, Source
from engine.errors import UnderstudyError
from engine.protocol import Devices, Health, Message, ProtocolError, SourceState, parse
from engine.store.clock import timestamp
from engine.watch.agentless import SCRIPT, read_answer

if TYPE_CHECKING:
    import asyncssh

CONNECT_S = 10.0
ANSWER_S = 15.0
OFFLINE_AFTER = 3  # looks in a row that brought nothing
RETRY_S = (2.0, 5.0, 15.0, 30.0)
QUIET_S = 75.0  # an engine that promises no beat repeats itself every 30 s: longer silence is a dead line
LEAST_QUIET_S = 10.0
ENGINE_AGAIN_S = 600.0  # a host without an engine that is understood may have been given one


class RemoteHost:
    """One host of `hosts.*`. `sample` never raises: what went wrong is in the answer's state and problem."""

    def __init__(self, name: str, host: Host, connect_s: float = CONNECT_S, answer_s: float = ANSWER_S) -> None:
        self.name, self._host = name, host
        self._connect_s, self._answer_s = connect_s, answer_s
        self._connection: asyncssh.SSHClientConnection | None = None
        self._last = Devices(name=name, state="offline", problem="not reached yet")
        self._failures = 0
        self._note: str | None = None  # why its engine is not read, though its devices are
        self.state: SourceState = "offline"
        self.since = timestamp()
        self.problem: str | None = "not reached yet"

    async def sample(self) -> Devices:
        """The host now, or the last good figures with the state `stale` or `offline` and why."""
        try:
            connection = await self.connected()
            async with asyncio.timeout(self._answer_s):
                done = await connection.run(f"sh -c {shlex.quote(SCRIPT)}", check=False, input="")
        except UnderstudyError as error:
            return self.failed(self.words(error), offline=True)
        except TimeoutError:
            await self.close()
            return self.failed(f"no answer within {self._answer_s:g} s")
        except _ssh_errors() as error:
            await self.close()
            return self.failed(f"the connection broke ({error})")
        found = read_answer(self.name, str(done.stdout or ""))
        if not found.devices[-1].total_bytes and len(found.devices) == 1:
            return self.failed("it lets this account run no commands", offline=True)
        self.answered(found)
        return self._last

    async def connected(self) -> asyncssh.SSHClientConnection:
        """The open connection, made anew where there is none.

        Raises:
            UnderstudyError: it cannot be made; never an unknown or changed host key accepted.
        """
        if self._connection is None or self._connection.is_closed():
            from engine.sync.ssh import connect

            host = self._host
            place = Source(
                kind="ssh",
                host=host.address,
                port=host.port,
                user=host.user,
                key=host.key.expanduser() if host.key else None,
                known_hosts=host.known_hosts.expanduser() if host.known_hosts else None,
                timeout_s=self._connect_s,
            )
            self._connection = await connect(place)
        return self._connection

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def answered(self, found: Devices) -> None:
        self._failures, self.problem = 0, None
        if self.state != "live":
            self.state, self.since = "live", timestamp()
        self._last = replace(found, state="live", since=self.since, problem=found.problem or self._note)

    def failed(self, problem: str, *, offline: bool = False) -> Devices:
        """Note a look that brought nothing; the last good figures, with the new state."""
        self._failures += 1
        state: SourceState = "offline" if offline or self._failures >= OFFLINE_AFTER else "stale"
        if self.state != state and not (self.state == "offline" and state == "stale"):
            self.state, self.since = state, timestamp()
        self.problem = problem
        self._last = replace(self._last, state=self.state, since=self.since, problem=problem)
        return self._last

    @property
    def detail(self) -> str | None:
        """What is wrong, or why the host's engine is not read; None when all is well."""
        return self.problem or self._note

    @property
    def pause_s(self) -> float:
        """How long to wait before the next look after a failure."""
        return RETRY_S[min(max(self._failures - 1, 0), len(RETRY_S) - 1)]

    def words(self, error: UnderstudyError) -> str:
        said = f"{error.message}: {error.hint}" if error.hint else error.message
        return said.replace("source.host", f"hosts.{self.name}.address").replace("source.", f"hosts.{self.name}.")

    async def follow(self, interval_s: float, put: Callable[[str, Any], None]) -> None:
        """Hand on what the host says until cancelled: `put(kind, data)`, its engine's stream or samples of it.

        Where `hosts.NAME.engine` or an `understudy-engine` on the PATH answers there, its `watch` is merged;
        else the host is sampled.
        """
        engine, engine_again_at = True, 0.0
        try:
            while True:
                if engine or time.monotonic() >= engine_again_at:
                    engine = await self._engine_stream(interval_s, put)
                    engine_again_at = time.monotonic() + ENGINE_AGAIN_S
                    if engine and self.problem is not None:
                        put("devices", self._last)
                        await asyncio.sleep(self.pause_s)
                else:
                    put("devices", await self.sample())
                    await asyncio.sleep(max(interval_s, 2.0) if self.problem is None else self.pause_s)
        finally:
            await self.close()

    async def _engine_stream(self, interval_s: float, put: Callable[[str, Any], None]) -> bool:
        """Merge `engine watch` of that host until it ends; False where there is none that is understood."""
        command = self._host.engine or "understudy-engine"
        try:
            connection = await self.connected()
            process: Any = await connection.create_process(
                f"exec {command} watch --interval {interval_s:g}", stderr=_devnull(), stdin=_devnull()
            )
        except UnderstudyError as error:
            self.failed(self.words(error), offline=True)
            return True
        except _ssh_errors() as error:
            await self.close()
            self.failed(f"the connection broke ({error})")
            return True
        heard, own, quiet_s = 0, "", QUIET_S
        try:
            while True:
                async with asyncio.timeout(quiet_s):
                    line = await process.stdout.readline()
                if not line:
                    break
                message = parse(line)
                own = own or message.host
                if isinstance(message.data, Health) and message.data.beat_s:
                    quiet_s = max(LEAST_QUIET_S, 5 * message.data.beat_s)
                if message.host == own:  # not the hosts that it watches in turn
                    self._hand_on(message, put)
                heard += 1
                self._note = None
        except ProtocolError as error:
            process.close()
            if error.kind == "version":
                self._note = self.words(error)
                return False
            self.failed(self.words(error))
            return heard > 0
        except TimeoutError:
            await self.close()
            self.failed(f"its engine has said nothing for {quiet_s:g} s")
            return True
        except _ssh_errors() as error:
            await self.close()
            self.failed(f"the connection broke ({error})")
            return True
        finally:
            with contextlib.suppress(*_ssh_errors()):
                process.close()
        if not heard:
            return False
        self.failed("its engine's stream ended")
        return True

    def _hand_on(self, message: Message, put: Callable[[str, Any], None]) -> None:
        if isinstance(message.data, Devices):
            self.answered(replace(message.data, name=self.name))
            put("devices", self._last)
        elif not isinstance(message.data, dict):
            put(message.kind, message.data)


async def sample_all(hosts: list[RemoteHost]) -> list[Devices]:
    """All hosts at once, each within its own deadline."""
    return list(await asyncio.gather(*(host.sample() for host in hosts)))


def _ssh_errors() -> tuple[type[Exception], ...]:
    import asyncssh

    return (asyncssh.Error, OSError, UnicodeDecodeError)


def _devnull() -> int:
    import asyncssh

    return asyncssh.DEVNULL
