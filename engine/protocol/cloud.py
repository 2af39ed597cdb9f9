"""The kind `cloud`: rented machines and one's own server, what they do and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudMachine:
    """One machine of the ledger. Money in US dollars.

    `cost_usd` is what was paid until `since`; where `since` is not None it goes on since then at `hourly_usd`, so that
    a reader knows the cost of every second. `state` is `launching`, `starting`, `running`, `preempted`, `stopped`,
    `ending`, `gone` or `unknown`, `job` is `waiting`, `running`, `done`, `failed`, `none` or `unknown`.
    `guarded`: whether its guard lives; None for a machine that is gone.
    """

    name: str
    provider: str
    state: str
    job: str = "unknown"
    gpu: str | None = None
    spot: bool = False
    run: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    samples_per_s: float | None = None
    eta_s: float | None = None
    gpu_use: float | None = None
    gpu_memory_used_bytes: int | None = None
    gpu_memory_total_bytes: int | None = None
    hourly_usd: float = 0.0
    cost_usd: float = 0.0
    since: str | None = None
    budget_usd: float | None = None
    stop_at: str | None = None  # when its budget ends it
    active_at: str | None = None  # when something was last seen to work there
    idle_limit_s: float | None = None
    launches: int = 0
    guarded: bool | None = None
    why: str = ""
    checked_at: str | None = None
    started_at: str | None = None
    closed_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """The machines, those that may cost money first; `total` counts them all."""

    machines: list[CloudMachine] = field(default_factory=list)
    total: int = 0
