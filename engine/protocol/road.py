"""The stream's words for every station of a model's road: runs, checkpoints, slots, comparisons.

The rules of the format stand in `engine.protocol.messages`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from engine.protocol.proof import Analysis, Export

SWEEPS = 20
SWEEP_ROWS = 50

SlotState = Literal["live", "loading", "empty", "down"]
BakeState = Literal["watching", "passed", "unjudged", "alarm", "rolled_back"]


# runs and progress ------------------------------------------------------------------------------------


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
    predicted_bytes: int | None = None
    available_bytes: int | None = None
    fit_verdict: str | None = None  # fits, edge, cannot: before it began
    best: Best | None = None
    checkpoint: str | None = None
    pid: int | None = None
    problem: str | None = None
    task: str | None = None  # None: from before tasks had names, images


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRun:
    """One run of a sweep; `overrides` are those in which the runs differ, `rank` is 1 for the best."""

    n: int
    status: str  # waiting, running, completed, interrupted, failed, lost
    rank: int | None = None
    overrides: list[str] = field(default_factory=list)
    accuracy: float | None = None
    f1_macro: float | None = None
    loss: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    seconds_s: float | None = None
    device: str | None = None
    checkpoint: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A grid of runs, ranked by `metric`: `runs` holds the first `SWEEP_ROWS` of `total`, the best first.

    `done` counts the completed ones, `failed` those that failed or were lost.
    """

    sweep: str
    state: str  # waiting, running, completed, interrupted, failed, lost
    done: int = 0
    failed: int = 0
    total: int = 0
    metric: str = "f1_macro"
    best: SweepRun | None = None
    runs: list[SweepRun] = field(default_factory=list)
    started_at: str | None = None
    finished_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Trainings, newest first, and the newest `SWEEPS` sweeps; the runs of a sweep stand there alone."""

    runs: list[Run] = field(default_factory=list)
    total: int = 0
    sweeps: list[Sweep] = field(default_factory=list)
    sweeps_total: int = 0


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
    fit_verdict: str | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    best: Best | None = None
    updated_at: str | None = None
    points: list[Point] = field(default_factory=list)
    points_total: int = 0
    task: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Every run that is under way, newest first; when none is, the last one that was."""

    runs: list[RunProgress] = field(default_factory=list)
    total: int = 0


# checkpoints ------------------------------------------------------------------------------------------


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
    """Checkpoint history, newest first; the last analysis, and the newest exports."""

    checkpoints: list[Checkpoint] = field(default_factory=list)
    total: int = 0
    analysis: Analysis | None = None
    exports: list[Export] = field(default_factory=list)


# slots ------------------------------------------------------------------------------------------------


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
class Bake:
    """The watch over a release that was promoted: it may still go back by itself.

    `release` took the place of `replaced`; both are counted (`requests`, `errors`) since `since`, until `until`.
    `unjudged`: too few answers came. `reason` says so, what raised the alarm, or why it went back.
    """

    release: str
    replaced: str | None = None
    since: str | None = None
    until: str | None = None
    state: BakeState = "watching"
    reason: str | None = None
    requests: int | None = None
    errors: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """AS-IS's requests that TO-BE answers too, unseen by the client; `share` of them are mirrored.

    `agreed` and `differed` count answers, `failed` those TO-BE had none for; of those that differed `queued`
    wait for a label and `labelled` have one.
    """

    share: float | None = None
    mirrored: int | None = None
    agreed: int | None = None
    differed: int | None = None
    failed: int | None = None
    queued: int | None = None
    labelled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Both slots, and the backups that `rollback` can put back, newest first."""

    asis: Slot
    tobe: Slot
    backups: list[Backup] = field(default_factory=list)
    total: int = 0
    bake: Bake | None = None
    shadow: Shadow | None = None


# ab ---------------------------------------------------------------------------------------------------


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
