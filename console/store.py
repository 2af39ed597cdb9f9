"""What the console knows: the last good snapshot of every kind and host, its age, and short histories."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from console.text import moment
from engine.protocol import (
    Ab,
    Checkpoints,
    Cloud,
    Device,
    Devices,
    Events,
    Health,
    Message,
    Progress,
    RunProgress,
    Runs,
    Slots,
    Source,
    SourceState,
)  # fmt: skip

STALE_AFTER_S = 45.0  # every kind is sent again after 30 s at the latest
HISTORY = 600
CURVES = 32
# the engine's source that a kind comes from, where it has another name
SOURCES = {"runs": "files", "progress": "files", "events": "files", "ab": "files", "cloud": "files"}
T = TypeVar("T")


@dataclass(slots=True)
class Snapshot:
    """One kind's last state: the data, the sender's time and when it came, in seconds since the epoch."""

    data: Any
    at: float
    came: float


@dataclass(slots=True)
class History:
    """The newest samples of one device, oldest first; `count` is how many there ever were."""

    used: deque[float | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    load: deque[float | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    last: str | None = None
    count: int = 0


@dataclass(slots=True)
class Rates:
    """A slot's requests per second, oldest first; `count` is how many there ever were."""

    per_s: deque[float | None] = field(default_factory=lambda: deque(maxlen=HISTORY))
    count: int = 0


@dataclass(slots=True)
class Freshness:
    """How far a pane's figures can be trusted. `age_s` counts since the last good figures came."""

    state: SourceState
    age_s: float
    why: str = ""


class Store:
    """The last snapshots. `feed` says whether the stream itself runs; the app sets it."""

    def __init__(self) -> None:
        self.snapshots: dict[tuple[str, str], Snapshot] = {}
        self.hosts: list[str] = []
        self.home: str | None = None
        self.history: dict[tuple[str, str, int], History] = {}
        self.rates: dict[str, Rates] = {}
        self.curves: dict[tuple[str, str], RunProgress] = {}  # of runs that were seen under way, the newest last
        self.feed: SourceState = "live"
        self.feed_why = ""
        self.feed_since = 0.0
        self.damaged = 0

    def clear(self) -> None:
        """Forget everything, as before the first message (a replay that jumps back)."""
        self.snapshots.clear()
        self.hosts.clear()
        self.home = None
        self.history.clear()
        self.rates.clear()
        self.curves.clear()

    def apply(self, message: Message, came: float) -> None:
        """Take one message; a kind that is not known here is passed over."""
        if isinstance(message.data, dict):
            return
        if message.host not in self.hosts:
            self.hosts.append(message.host)
        if self.home is None or (message.kind == "slots" and self.home != message.host and self.slots is None):
            self.home = message.host
        at = moment(message.at) or came
        self.snapshots[message.host, message.kind] = Snapshot(message.data, at, came)
        if isinstance(message.data, Devices):
            for device in message.data.devices:
                self._remember(message.host, device)
        elif isinstance(message.data, Progress):
            for run in message.data.runs:
                self.curves.pop((message.host, run.run), None)
                self.curves[message.host, run.run] = run
            while len(self.curves) > CURVES:
                del self.curves[next(iter(self.curves))]
        elif isinstance(message.data, Slots) and message.host == self.home:
            for name in ("asis", "tobe"):
                rates = self.rates.setdefault(name, Rates())
                rates.per_s.append(getattr(message.data, name).requests_per_s)
                rates.count += 1

    def _remember(self, host: str, device: Device) -> None:
        history = self.history.setdefault((host, device.kind, device.index), History())
        if device.stale or (device.sampled_at and device.sampled_at == history.last):
            return
        history.last = device.sampled_at
        history.count += 1
        total = device.total_bytes
        history.used.append(device.used_bytes / total if total and device.used_bytes is not None else None)
        history.load.append(device.utilization)

    def _get(self, kind: str, shape: type[T], host: str | None = None) -> T | None:
        found = self.snapshots.get((host or self.home or "", kind))
        return found.data if found and isinstance(found.data, shape) else None

    @property
    def slots(self) -> Slots | None:
        return self._get("slots", Slots)

    @property
    def ab(self) -> Ab | None:
        return self._get("ab", Ab)

    @property
    def runs(self) -> Runs | None:
        return self._get("runs", Runs)

    @property
    def checkpoints(self) -> Checkpoints | None:
        return self._get("checkpoints", Checkpoints)

    @property
    def cloud(self) -> Cloud | None:
        return self._get("cloud", Cloud)

    @property
    def events(self) -> Events | None:
        return self._get("events", Events)

    @property
    def health(self) -> Health | None:
        return self._get("health", Health)

    def progress(self) -> list[tuple[str, Any]]:
        """(host, RunProgress) of every host, home first; under way before finished."""
        rows = [
            (host, run)
            for host in self._ordered()
            for run in (self._get("progress", Progress, host) or Progress()).runs
        ]
        return sorted(rows, key=lambda row: row[1].status != "running")

    def devices(self) -> list[tuple[str, Devices]]:
        """(host, its devices), home first."""
        found = ((host, self._get("devices", Devices, host)) for host in self._ordered())
        return [(host, data) for host, data in found if data is not None]

    def _ordered(self) -> list[str]:
        return sorted(self.hosts, key=lambda host: host != self.home)

    def freshness(self, kind: str, now: float, host: str | None = None) -> Freshness:
        """Whether a kind's figures are live; judged by the stream, the engine's own words and the clock."""
        host = host or self.home or ""
        snapshot = self.snapshots.get((host, kind))
        if snapshot is None:
            return Freshness("offline", 0.0, self.feed_why or "")
        age = max(0.0, now - snapshot.came)
        if self.feed != "live":
            return Freshness(self.feed, max(age, now - self.feed_since), self.feed_why)
        for source in self._sources(kind, host):
            if source.state != "live":
                since = moment(source.since)
                return Freshness(source.state, now - since if since else age, source.detail or "")
        if isinstance(snapshot.data, Devices) and snapshot.data.state != "live":
            since = moment(snapshot.data.since)
            return Freshness(snapshot.data.state, now - since if since else age, snapshot.data.problem or "")
        if age > STALE_AFTER_S:
            return Freshness("stale", age)
        return Freshness("live", age)

    def _sources(self, kind: str, host: str) -> Iterator[Source]:
        """What the engines said of the sources of a kind: the host's own, and for another host the way to it."""
        own = self._get("health", Health, host)
        for source in own.sources if own else []:
            if source.name in (kind, SOURCES.get(kind)):
                yield source
        if host != self.home and self.health:
            yield from (source for source in self.health.sources if source.name == f"host {host}")
