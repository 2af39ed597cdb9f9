"""`watch`: every kind at the start, when it changes and every 30 s, as lines of the protocol."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engine import __version__
from engine.config import Settings
from engine.config.schema import Host
from engine.config.secrets import mask
from engine.protocol import (
    VERSION,
    Checkpoints,
    Data,
    Devices,
    Health,
    Message,
    Runs,
    Slots,
    Source,
    SourceState,
    encode,
)
from engine.store.clock import timestamp
from engine.store.workspace import Workspace
from engine.training.alerts import check_runs
from engine.watch.advice import advise
from engine.watch.remote import RemoteHost
from engine.watch.sources import (
    CheckpointSource,
    FileSource,
    Found,
    GpuSource,
    HostSource,
    SlotSource,
    Worker,
    in_words,
)

REPEAT_S = 30.0
BEAT_S = 2.0  # something is said at least this often, so that a stream that hangs is known at once
STALE_S = 3.0  # silence of a local source, beyond two intervals, before it is called stale
SLOW = {"checkpoints": 60.0, "gpu": 12.0}  # those that may take longer: hashing what is new, loading a driver
OFFLINE_S = 60.0
_REMOTE = "remote "


@dataclass
class _Heard:
    """When a local source was last heard, and the state that was last said of it."""

    at: float
    state: SourceState = "live"
    since: str = ""
    problem: str | None = None


_GPU_LATER_S = 0.4
_RUNS_S = 5.0


class Stream:
    """Numbers the messages and leaves out what was said already.

    Args:
        write: takes one line with its newline.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._seq = 0
        self.said_at = time.monotonic()
        self._sent: dict[tuple[str, str], tuple[float, Data]] = {}

    def say(self, host: str, kind: str, data: Data, *, again: bool = False) -> None:
        """Send the snapshot if it is new, was last sent 30 s ago, or is wanted `again`."""
        before = self._sent.get((host, kind))
        moment = time.monotonic()
        if not again and before is not None and before[1] == data and moment - before[0] < REPEAT_S:
            return
        self.said_at = moment
        self._sent[(host, kind)] = (moment, data)
        self._seq += 1
        message = Message(v=VERSION, seq=self._seq, at=timestamp(), host=host, kind=kind, data=data)
        self._write(mask(encode(message)) + "\n")


def watch(
    workspace: Workspace,
    settings: Settings,
    hosts: dict[str, Host],
    interval_s: float,
    write: Callable[[str], None],
    *,
    ends: Callable[[], bool],
) -> None:
    """Stream until `ends()` is true, which is asked at least once an interval.

    Args:
        hosts: more hosts, each streamed under its own name.
        interval_s: how often each source is looked at.
    """
    _Watch(workspace, settings, hosts, interval_s, Stream(write)).run(ends)


class _Watch:
    def __init__(
        self, workspace: Workspace, settings: Settings, hosts: dict[str, Host], interval_s: float, stream: Stream
    ) -> None:
        self._workspace, self._settings, self._interval_s, self._stream = workspace, settings, interval_s, stream
        self._here = socket.gethostname()
        self._found: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self._gpus = GpuSource()
        looks = {
            "gpu": self._gpus.look,
            "devices": HostSource(workspace, self._gpus).look,
            "slots": SlotSource(workspace, settings).look,
            "files": FileSource(workspace, settings).look,
            "checkpoints": CheckpointSource(workspace, settings).look,
        }
        # the GPUs' child would take the processor from a screen that is about to draw its first figures
        self._workers = [
            Worker(name, look, interval_s, self._found, _GPU_LATER_S if name == "gpu" else 0.0)
            for name, look in looks.items()
        ]
        moment, since = time.monotonic(), timestamp()
        self._began = moment
        self._heard = {name: _Heard(moment, since=since) for name in looks}
        self._parts: dict[tuple[str, str], _Heard] = {}  # kinds of a source that cannot be read, by both names
        self._remote = [RemoteHost(name, host) for name, host in hosts.items()]
        self._latest: dict[str, Any] = {}
        self._alerts: list[str] = []

    def run(self, ends: Callable[[], bool]) -> None:
        for worker in self._workers:
            worker.start()
        threading.Thread(target=self._look_at_runs, name="alerts", daemon=True).start()
        if self._remote:
            threading.Thread(target=self._follow_remote, name="remote", daemon=True).start()
        try:
            while not ends():
                self._take(min(self._interval_s, BEAT_S / 2))
                self._say_all()
        finally:
            self._gpus.close()

    def _take(self, wait_s: float) -> None:
        """Take what was found, waiting for the first; the rest of a burst goes out in one go."""
        try:
            found = self._found.get(timeout=wait_s)
            while True:
                self._note(found)
                found = self._found.get(timeout=0.02)
        except queue.Empty:
            return

    def _note(self, found: Found) -> None:
        if found.source.startswith(_REMOTE):
            host = found.source.removeprefix(_REMOTE)
            for kind, data in found.data.items():
                self._stream.say(host, kind, data)
            return
        heard = self._heard[found.source]
        heard.at, heard.problem = time.monotonic(), found.problem
        self._latest |= found.data
        for part in [part for part in self._parts if part[0] == found.source and part[1] not in found.problems]:
            del self._parts[part]
        for kind, problem in found.problems.items():
            missing = self._parts.setdefault((found.source, kind), _Heard(heard.at, "stale", timestamp()))
            missing.problem = problem

    def _say_all(self) -> None:
        for name, heard in self._heard.items():
            self._judge(name, heard)
        host = self._latest.get("devices")
        if isinstance(host, Devices):
            heard = self._heard["devices"]
            if heard.state != "live":
                host = replace(
                    host, state=heard.state, since=heard.since, problem="this host's figures do not come"
                )
            self._stream.say(self._here, "devices", host)
        for kind in ("slots", "runs", "progress", "checkpoints", "ab", "events", "cloud"):
            if kind in self._latest:
                self._stream.say(self._here, kind, self._latest[kind])
        moment = time.monotonic()
        # at the start the first words wait for both; where one of them hangs, that must be said
        if {"slots", "health"} <= self._latest.keys() or moment - self._began > BEAT_S:
            self._stream.say(self._here, "health", self._health(), again=moment - self._stream.said_at >= BEAT_S)

    def _judge(self, name: str, heard: _Heard) -> None:
        silent_s = time.monotonic() - heard.at
        state: SourceState = "live"
        if silent_s > SLOW.get(name, STALE_S) + 2 * self._interval_s or heard.problem:
            state = "offline" if silent_s > OFFLINE_S else "stale"
        if name == "gpu" and self._gpus.problem:
            heard.problem, state = self._gpus.problem, "stale"
        if state != heard.state:
            heard.state, heard.since = state, timestamp()

    def _health(self) -> Health:
        slots: Slots | None = self._latest.get("slots")
        health: Health = self._latest.get("health") or Health(
            workspace=str(self._workspace.root), version=__version__
        )
        sources = [
            Source(
                name=name,
                state=heard.state,
                since=heard.since,
                detail=heard.problem or (None if heard.state == "live" else "it does not answer"),
            )
            for name, heard in self._heard.items()
            if name != "gpu" or self._gpus.latest or self._gpus.problem
        ]
        sources += [
            Source(name=kind, state=part.state, since=part.since, detail=part.problem)
            for (_, kind), part in self._parts.items()
        ]
        sources += [
            Source(name=f"host {host.name}", state=host.state, since=host.since, detail=host.detail)
            for host in self._remote
        ]
        full = replace(health, sources=sources, beat_s=BEAT_S, alerts=[*self._alerts, *health.alerts])
        if slots is None:
            return full
        runs = self._latest.get("runs", Runs()).runs
        known = self._latest.get("checkpoints", Checkpoints())
        waiting = any(one.state == "new" for one in known.checkpoints)
        return replace(full, next=advise(slots, full, runs, checkpoints=waiting))

    def _look_at_runs(self) -> None:
        """Tell of runs that died or stand still; a message may take its time, so in a thread of its own."""
        while True:
            time.sleep(max(_RUNS_S, self._interval_s))
            self._alerts = check_runs(self._workspace, self._settings)

    def _follow_remote(self) -> None:
        async def follow(host: RemoteHost) -> None:
            def put(kind: str, data: Any) -> None:
                self._found.put(Found(_REMOTE + host.name, {kind: data}))

            while True:
                try:
                    await host.follow(self._interval_s, put)
                except Exception as error:  # noqa: BLE001 - one host's surprise must not end the looks at it
                    put("devices", host.failed(in_words(error)))
                    await asyncio.sleep(host.pause_s)

        async def follow_all() -> None:
            await asyncio.gather(*map(follow, self._remote))

        asyncio.run(follow_all())
