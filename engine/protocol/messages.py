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

VERSION = 1
OLDEST = 1
NEWEST = 200

Kind = Literal["devices", "slots", "runs", "progress", "checkpoints", "ab", "events", "health"]
SlotState = Literal["live", "loading", "empty", "down"]
SourceState = Literal["live", "stale", "offline"]


# devices ---------------------------------------------------------------------------------------------


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


# slots -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One slot. The pointer says what it should serve; `requests` to `started_at` are the server's words.

    `checked_accuracy` is what the last comparison measured for this very release, `accuracy` what its
    checkpoint claims. `serving` is the release that the server answers with, should it be another one;
    `problem` says why the pointer's release is not served.
    """

    port: int
    state: SlotState
    release: str | None = None
    sha256: str | None = None
    md5: str | None = None
    checkpoint: str | None = None
    cycle: int | None = None
    epoch: int | None = None
    accuracy: float | None = None
    checked_accuracy: float | None = None
    architecture: str | None = None
    precision: str | None = None
    since: str | None = None
    serving: str | None = None
    requests: int | None = None
    requests_per_s: float | None = None
    errors: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    swaps: int | None = None
    pid: int | None = None
    started_at: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup of AS-IS; `verified` is None where its hash was not checked for this listing."""

    name: str
    release: str | None = None
    cycle: int | None = None
    accuracy: float | None = None
    at: str | None = None
    bytes: int | None = None
    verified: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Both slots, and the backups that `rollback` can put back, newest first."""

    asis: Slot
    tobe: Slot
    backups: list[Backup] = field(default_factory=list)
    total: int = 0


# runs and progress -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    epoch: int | None = None
    accuracy: float | None = None
    f1_macro: float | None = None
    loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    run: str
    status: str  # running, completed, interrupted, failed, lost
    model: str | None = None
    data: str | None = None
    cycle: int | None = None
    device: str | None = None
    precision: str | None = None
    epochs: int | None = None
    started_at: str | None = None
    finished_at: str | None = None
    seconds_s: float | None = None
    samples_per_s: float | None = None
    peak_memory_bytes: int | None = None
    best: Best | None = None
    checkpoint: str | None = None
    pid: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Trainings, newest first."""

    runs: list[Run] = field(default_factory=list)
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One finished epoch of a run's curves."""

    epoch: int
    step: int | None = None
    train_loss: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    f1_macro: float | None = None
    learning_rate: float | None = None
    samples_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """Where a run is, with its newest points, oldest first; `points_total` counts all of them.

    `step` and `steps` count within the epoch. `predicted_bytes` is what `fit` forecast.
    """

    run: str
    status: str
    device: str | None = None
    precision: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    samples_per_s: float | None = None
    eta_s: float | None = None
    memory_bytes: int | None = None
    predicted_bytes: int | None = None
    available_bytes: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    best: Best | None = None
    updated_at: str | None = None
    points: list[Point] = field(default_factory=list)
    points_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Every run that is under way, newest first; when none is, the last one that was."""

    runs: list[RunProgress] = field(default_factory=list)
    total: int = 0


# checkpoints -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """`state`: where it stands (asis, tobe, both, backup, released, rejected, new, ...); `reason`: why."""

    path: str
    cycle: int | None = None
    epoch: int | None = None
    step: int | None = None
    accuracy: float | None = None
    loss: float | None = None
    bytes: int | None = None
    sha256: str | None = None
    saved_at: str | None = None
    state: str | None = None
    release: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """Checkpoint history, newest first."""

    checkpoints: list[Checkpoint] = field(default_factory=list)
    total: int = 0


# ab --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One slot's answers in a comparison; errors and time-outs count as wrong."""

    release: str | None = None
    port: int | None = None
    correct: int | None = None
    accuracy: float | None = None
    ci95: list[float] | None = None
    errors: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassResult:
    label: str
    n: int
    asis_correct: int | None = None
    tobe_correct: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """An image on which the slots disagree, by its hash; `path`, where known, lies on the comparing host."""

    label: str
    sha256: str | None = None
    path: str | None = None
    asis: str | None = None
    tobe: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison, finished or under way (`running`); `planned` is how many images it will ask.

    `p_value` is McNemar's mid-p, `e_value` the e-process (decides at `e_needed`, 1/alpha), both over the
    cells shown; `current` says whether both slots still hold the releases that were compared.
    """

    id: int
    n: int
    planned: int | None = None
    running: bool = False
    started_at: str | None = None
    finished_at: str | None = None
    data: str | None = None
    seed: int | None = None
    asis: Side = field(default_factory=Side)
    tobe: Side = field(default_factory=Side)
    both_right: int | None = None
    asis_only: int | None = None
    tobe_only: int | None = None
    both_wrong: int | None = None
    difference: float | None = None
    difference_ci95: list[float] | None = None
    p_value: float | None = None
    p_exact: float | None = None
    e_value: float | None = None
    e_needed: float | None = None
    verdict: str | None = None
    reason: str | None = None
    images_needed: int | None = None
    current: bool | None = None
    per_class: list[ClassResult] = field(default_factory=list)
    differing: list[Differing] = field(default_factory=list)
    differing_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What `promote` would be told now; `images_missing` where more images could open it."""

    open: bool
    reason: str
    images_missing: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ab:
    """The comparison under way, else the last one; the gate; and how many comparisons there were."""

    comparison: Comparison | None = None
    gate: Gate | None = None
    total: int = 0


# events ----------------------------------------------------------------------------------------------


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


# health ----------------------------------------------------------------------------------------------


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
    """What is wrong where, and what may be done next."""

    sources: list[Source] = field(default_factory=list)
    gate: Gate | None = None
    next: Next | None = None
    last_sync: LastSync | None = None
    missed_looks: int = 0
    poll_s: float | None = None
    held: Held | None = None
    locks: list[Lock] = field(default_factory=list)
    unfinished: str | None = None  # the purpose of a slot's change that a crash left half done
    workspace: str | None = None
    version: str | None = None


Data = Devices | Slots | Runs | Progress | Checkpoints | Ab | Events | Health

KINDS: dict[str, type] = {
    "devices": Devices,
    "slots": Slots,
    "runs": Runs,
    "progress": Progress,
    "checkpoints": Checkpoints,
    "ab": Ab,
    "events": Events,
    "health": Health,
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
