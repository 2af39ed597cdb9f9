"""What `engine watch` says: one message a line, each the whole snapshot of its kind on one host.

The classes are the format: a field's name is its JSON key, a field with a default may be missing.
Fields may be added under the same version; a reader passes over what it does not know. A change of
meaning raises `VERSION`. Rates are fractions from 0 to 1, times ISO 8601 with offset, durations end in
`_s` or `_ms`, sizes in `_bytes`; None means "not known here". Lists hold the newest `NEWEST` and the
snapshot's `total` counts them all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from engine.protocol.cloud import Cloud
from engine.protocol.road import Ab, Checkpoints, Gate, Progress, Runs, Slots

VERSION = 1
OLDEST = 1
NEWEST = 200

Kind = Literal["devices", "slots", "runs", "progress", "checkpoints", "ab", "events", "health", "cloud"]
SourceState = Literal["live", "stale", "offline"]


# devices ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProcess:
    """A process that holds memory of a device."""

    pid: int
    name: str | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, or the host's CPU as `kind` "cpu" (its memory is the host's RAM).

    `memory` names further figures where one number would mislead: on MPS `driver_bytes` (what the driver
    holds for all processes), `allocated_bytes` (live buffers) and `system_bytes` (unified memory in use).
    `problem` says why the figures are old; `sampled_at` then is the time of the last good ones.
    """

    kind: str  # cuda, mps, xpu, cpu
    name: str
    index: int = 0
    total_bytes: int | None = None
    used_bytes: int | None = None
    utilization: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    processes: list[DeviceProcess] = field(default_factory=list)
    memory: dict[str, int] = field(default_factory=dict)
    stale: bool = False
    problem: str | None = None
    sampled_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Devices:
    """One host. `process_rss_bytes` is the sampling process's own size; `disk_*` is the workspace's disk."""

    name: str
    devices: list[Device] = field(default_factory=list)
    process_rss_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    state: SourceState = "live"
    since: str | None = None
    problem: str | None = None


# events -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    id: int
    at: str
    kind: str
    subject: str
    actor: str = ""
    host: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """The audit log, newest last; `head` is the hash of its last line."""

    events: list[Event] = field(default_factory=list)
    total: int = 0
    head: str | None = None


# health -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One thing that is watched (`slots`, `gpu`, `host gpu-box`): live, stale or offline, and since when."""

    name: str
    state: SourceState
    since: str
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSync:
    """The last look at the source; `error` says why it failed."""

    at: str
    changed: bool | None = None
    deployed: bool | None = None
    release: str | None = None
    candidate: str | None = None
    error: str | None = None
    failing_since: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """TO-BE is kept as it is, by whom and since when; `newer` names the checkpoint that waits."""

    since: str | None = None
    by: str | None = None
    reason: str | None = None
    newer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    name: str
    pid: int | None = None
    purpose: str | None = None
    since: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Next:
    """What the operator may do next: a stable word for `action`, the sentence in English, its figures.

    Actions: `none`, `wait`, `train`, `sync`, `serve`, `compare`, `more_images`, `promote`, `force`,
    `unhold`, `look`, `recover`.
    """

    action: str
    text: str
    images: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What is wrong where, and what may be done next.

    It is said again at least every `beat_s`, though nothing changed: who hears nothing for longer knows that the
    stream itself hangs. None from a writer that does not promise that.
    """

    sources: list[Source] = field(default_factory=list)
    gate: Gate | None = None
    next: Next | None = None
    last_sync: LastSync | None = None
    missed_looks: int = 0
    poll_s: float | None = None
    held: Held | None = None
    locks: list[Lock] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)  # sentences that want a person, the newest first
    unfinished: str | None = None  # the purpose of a slot's change that a crash left half done
    workspace: str | None = None
    version: str | None = None
    beat_s: float | None = None


# the envelope ------------------------------------------------------------------------------------------


Data = Devices | Slots | Runs | Progress | Checkpoints | Ab | Events | Health | Cloud

KINDS: dict[str, type] = {
    "devices": Devices,
    "slots": Slots,
    "runs": Runs,
    "progress": Progress,
    "checkpoints": Checkpoints,
    "ab": Ab,
    "events": Events,
    "health": Health,
    "cloud": Cloud,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One line of the stream. `seq` counts the lines of one stream from 1; `data` fits `kind`.

    A kind that this version does not know keeps its JSON object as `data`.
    """

    v: int
    seq: int
    at: str
    host: str
    kind: str
    data: Data | dict[str, Any]
