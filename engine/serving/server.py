"""One slot's server in this process: the public and the private HTTP on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
import uvloop

from engine.config.schema import Servers
from engine.config.schema import Shadow as ShadowSettings
from engine.errors import Busy, UnderstudyError, UsageError
from engine.release.control import socket_path
from engine.serving.address import listen_on
from engine.serving.app import App
from engine.serving.private import Private, private_socket
from engine.serving.protocol import limited_protocol
from engine.serving.shadow import Shadow
from engine.serving.slot import Slot
from engine.store import logjson
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.locks import hold
from engine.store.logfile import LogFile, log_path
from engine.store.workspace import TITLES, Workspace

log = logging.getLogger("understudy.serving")

_KEEP_ALIVE_S = 65
_OPEN_FILES = 8192
Announce = Callable[[dict[str, Any]], None]


def serve_slot(
    workspace: Workspace,
    servers: Servers,
    name: str,
    announce: Announce,
    *,
    device: str = "auto",
    task: str = "images",
    shadow: ShadowSettings | None = None,
    tied: bool = False,
) -> int:
    """Serve one slot until a signal; returns its number (SIGTERM, SIGINT).

    Args:
        announce: called with `{slot, port, state, release, pid, host, problem}` when the slot is ready and
            after each change of it.
        device: where torch runs a net, as `device.prefer`.
        task: code of one's own that a release may name as its task, as the setting `task`.
        shadow: which of AS-IS's requests TO-BE gets too; None: none.
        tied: stop also when standard input closes (the parent holds its other end).

    Raises:
        Busy: the slot of this workspace is served already, or the port is taken.
    """
    host, port = servers.host, getattr(servers, name).port
    _log_to_file(workspace, name)
    _allow_many_connections()
    with contextlib.ExitStack() as stack:
        try:
            try:
                stack.enter_context(hold(workspace.lock(f"serve-{name}"), f"serve {name} on port {port}"))
            except Busy as error:
                raise Busy(
                    error.message.replace(f"serve-{name} is held by", f"{TITLES[name]} is served already:"),
                    "use that server, or stop it first",
                ) from None
            public = stack.enter_context(contextlib.closing(listen_on(host, port)))
            path = socket_path(workspace, name)
            private = stack.enter_context(contextlib.closing(private_socket(path)))
        except OSError as error:
            raise UsageError(
                f"the workspace {workspace.root} cannot be used ({error})", "check its path and its rights"
            ) from None
        stack.callback(path.unlink, missing_ok=True)
        return uvloop.run(
            _Server(workspace, servers, name, announce, device, task, shadow).run(public, private, tied=tied)
        )


def _log_to_file(workspace: Workspace, name: str) -> None:
    """What this server logs, and each request where that is wished, also goes to the slot's own log."""
    if workspace.root.exists() and not workspace.root.is_dir():
        return  # the lock says so in better words
    handler = logging.StreamHandler(LogFile(log_path(workspace, name)))
    handler.setFormatter(logjson.TextFormatter())
    logging.getLogger().addHandler(handler)


def _allow_many_connections() -> None:
    """Raise the soft limit of open files, 1024 on many hosts, as far as the host lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Quiet(uvicorn.Server):
    """uvicorn leaves the signals to us: two servers share one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Server:
    def __init__(
        self,
        workspace: Workspace,
        servers: Servers,
        name: str,
        announce: Announce,
        device: str,
        task: str,
        shadow: ShadowSettings | None,
    ) -> None:
        self._workspace, self._servers, self._name = workspace, servers, name
        self._shadow = (
            Shadow(workspace, shadow, servers.host, self._mirrored) if shadow and name == "asis" else None
        )
        self._port = getattr(servers, name).port
        self._announce, self._device, self._task = announce, device, task
        self._started_at = timestamp()
        self._signal = 0
        self._ready = False
        self._shown: str | None = None
        self._records: set[asyncio.Future[Any]] = set()

    async def run(self, public: socket.socket, private: socket.socket, *, tied: bool) -> int:
        parent = os.getppid()
        self._slot = Slot(
            self._workspace,
            self._name,
            self._servers,
            device=self._device,
            task=self._task,
            on_change=self._changed,
            on_alert=self._alert,
        )
        self._app = App(self._slot, self._servers.queue, self._servers.max_wait_s, self._servers.max_body_bytes)
        if self._shadow is not None and self._shadow.start():
            self._app.after_answer = self._shadow.offer
        self._changed()
        self._front = _Quiet(self._config(self._app, logs=self._servers.access_log))
        self._channel = _Quiet(self._config(Private(self._slot, self.stats), logs=False))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        if tied:
            loop.add_reader(sys.stdin.fileno(), self._parent_gone)
        serving = asyncio.gather(self._front.serve(sockets=[public]), self._channel.serve(sockets=[private]))
        following = asyncio.create_task(self._follow())
        try:
            self._record("started")
            await serving
        finally:
            following.cancel()
            await self._slot.close()
            if self._shadow is not None:
                await asyncio.to_thread(self._shadow.close)
            orphaned = tied and os.getppid() != parent  # nobody asked for this end
            self._record("stopped", {"orphaned": True} if orphaned else None)
            await asyncio.gather(*self._records, return_exceptions=True)
        return self._signal

    def _config(self, app: Any, *, logs: bool) -> uvicorn.Config:
        servers = self._servers
        return uvicorn.Config(
            app,
            http=limited_protocol(servers.receive_timeout_s, servers.max_body_bytes, logs=logs),
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(servers.drain_timeout_s)),
        )

    async def _follow(self) -> None:
        with contextlib.suppress(UnderstudyError):
            await self._slot.follow()
        self._ready = True
        self._say()
        await self._slot.run()

    def stats(self) -> dict[str, Any]:
        """What `engine.release.control.slot_stats` returns."""
        slot, metrics, live = self._slot, self._app.metrics, self._app.answers.live
        return {
            "pid": os.getpid(),
            "slot": self._name,
            "host": self._servers.host,
            "port": self._port,
            "state": slot.state,
            "release": slot.shown.card["release"] if slot.shown else None,
            "since": slot.since,
            "loaded_at": slot.shown.loaded_at if slot.shown else None,
            "requests": metrics.requests_total,
            "errors": metrics.failures_total,
            "refused": metrics.refused_total,
            "waiting": self._app.waiting,
            "p50_ms": live.percentile_ms(0.5) if live else None,
            "p99_ms": live.percentile_ms(0.99) if live else None,
            "answers": self._app.answers.to_dict(),
            "swaps": slot.swaps,
            "restarts": slot.restarts,
            "worker_pid": slot.active.process.pid if slot.active else None,
            "started_at": self._started_at,
            "problem": slot.problem,
        }

    def _mirrored(self, result: str) -> None:
        self._app.metrics.mirrored(result)

    def _changed(self) -> None:
        slot, metrics = self._slot, self._app.metrics
        metrics.show_changes(slot.swaps, slot.restarts)
        release = slot.active.card["release"] if slot.active else None
        if release != self._shown:
            self._shown = release
            logjson.about(release=release or "")
            if release is not None:
                self._app.answers.goes_live(release, timestamp())
        metrics.show_release(slot.active.card if slot.active else None)
        if self._ready:
            self._say()

    def _say(self) -> None:
        stats = self.stats()
        words = {key: stats[key] for key in ("slot", "port", "state", "release", "pid", "problem")}
        try:
            self._announce({**words, "host": self._servers.host})
        except OSError:
            log.warning("nobody reads the slot's states any more")
            self._ready = False

    def _alert(self, sentence: str) -> None:
        log.error("%s", sentence)
        self._record("alert", {"problem": sentence})

    def _record(self, kind: str, detail: dict[str, Any] | None = None) -> None:
        """Add an event beside the loop: its lock and its fsync must not hold up a request."""
        fields = {"slot": self._name, "port": self._port, "pid": os.getpid(), **(detail or {})}
        work = asyncio.get_running_loop().run_in_executor(None, self._append, kind, fields)
        self._records.add(work)
        work.add_done_callback(self._records.discard)

    def _append(self, kind: str, fields: dict[str, Any]) -> None:
        try:
            append_event(self._workspace, kind, self._name, fields)
        except (UnderstudyError, OSError) as error:
            log.error("the event '%s' was not written: %s", kind, error)

    def _stop(self, number: int) -> None:
        if self._signal:
            self._front.force_exit = self._channel.force_exit = True
        self._signal = self._signal or number
        self._front.should_exit = self._channel.should_exit = True

    def _parent_gone(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop(signal.SIGTERM)
