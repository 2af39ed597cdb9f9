"""A launch gone through without renting: what it checks, what it would upload, what its provider says to it.

Nothing is written: no page of the ledger, no task in the workspace, nothing on a machine.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from engine.cloud.ledger import Entry, Ledger, seconds
from engine.cloud.machines import checked, memory_problem, open_provider
from engine.cloud.money import stop_at
from engine.cloud.plan import Hours, hours_on, work_of
from engine.cloud.prices import find_gpu, price_table
from engine.cloud.provider import Check, Job, Provider, Upload
from engine.cloud.rates import measured_rates
from engine.config import Settings
from engine.errors import Failed, UnderstudyError, UsageError
from engine.store.clock import timestamp
from engine.store.workspace import Workspace


@dataclass(frozen=True)
class Rehearsal:
    """What a launch of the job would be; `task` is what SkyPilot would be given, None: another provider."""

    job: Job
    provider: str
    hourly_usd: float
    checks: tuple[Check, ...]
    uploads: tuple[Upload, ...]
    task: str | None

    @property
    def ok(self) -> bool:
        return all(check.ok is not False for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        job = self.job
        return {
            "name": job.name,
            "provider": self.provider,
            "gpu": job.gpu,
            "spot": job.spot,
            "words": " ".join(job.words),
            "hourly_usd": self.hourly_usd,
            "budget_usd": job.budget_usd,
            "stop_at": timestamp(job.stop_at) if job.stop_at is not None else None,
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
            "uploads": [asdict(upload) | {"source": str(upload.source)} for upload in self.uploads],
            "task": self.task,
        }

    def problem(self) -> UnderstudyError | None:
        """The first check that failed, as the launch's error; its payload is the whole rehearsal."""
        for check in self.checks:
            if check.ok is False:
                kind = UsageError if check.usage else Failed
                error = kind(f"{check.name}: {check.detail}", check.fix, kind=f"rehearsal_{check.name}")
                error.payload = self.as_json() | error.as_json()
                return error
        return None


def rehearse(
    workspace: Workspace, settings: Settings, job: Job, provider: Provider | None = None, now: float | None = None
) -> Rehearsal:
    """Go through the launch of a job.

    Raises:
        UsageError: no provider, no such GPU, no budget where it costs something, or one that is too small.
        Busy: a machine of this name may still run.
    """
    provider = provider or open_provider(settings, workspace)
    Ledger(workspace).must_be_free(job.name)
    entry = checked(settings, job, provider, seconds() if now is None else now)
    job = replace(entry.job, stop_at=stop_at(entry, settings.cloud, entry.started_at))
    said = provider.rehearse(job)
    checks = (
        *_money(workspace, settings, entry),
        *_memory(workspace, settings, job, said.gpu_bytes),
        *said.checks,
    )
    return Rehearsal(job, provider.name, entry.hourly_usd, checks, said.uploads, said.task)


def _money(workspace: Workspace, settings: Settings, entry: Entry) -> list[Check]:
    """The price against the table's, and how long the budget lasts against how long the training takes."""
    job, most = entry.job, entry.hourly_usd
    checks, least, hours = [], most, None
    if job.gpu is not None and entry.provider == "skypilot":
        try:
            rows = find_gpu(price_table(settings, workspace.state), job.gpu, settings.cloud.infra)
        except UsageError:
            return [
                Check("price", None, f"the table has no {job.gpu}; at most ${most:.2f} an hour"),
                *_budget(settings, entry, least, hours),
            ]
        row, spot = min(((row, row.spot_usd if job.spot else row.hourly_usd) for row in rows), key=lambda pair: pair[1] or float("inf"))  # fmt: skip
        price = row.hourly_usd if spot is None else spot
        word = "spot " if job.spot and spot is not None else ""
        known = f"the table's cheapest {word}{row.gpu} is ${price:.2f} ({row.provider}, {row.origin})"
        if price > most:
            fix = "raise --max-hourly, or look for today's prices: cloud plan --refresh"
            checks.append(Check("price", False, f"{known}, more than ${most:.2f} an hour", fix, usage=True))
        else:
            checks.append(Check("price", True, f"{known}; at most ${most:.2f} an hour"))
            least = price
        if settings.task in ("images", "go"):
            samples, epochs = work_of(settings, workspace)
            hours = hours_on(row, samples * epochs, measured_rates(settings, workspace))
    return [*checks, *_budget(settings, entry, least, hours)]


def _budget(settings: Settings, entry: Entry, least: float, hours: Hours | None) -> list[Check]:
    budget, most = entry.budget_usd, entry.hourly_usd
    if budget is None:
        return [Check("budget", True, "it costs nothing")] if not most else []
    off = (settings.cloud.reserve_minutes + entry.job.idle_minutes) / 60
    shortest, longest = (budget / price - off for price in (most, least))
    span = f"{shortest:.1f}" if most == least else f"{shortest:.1f} to {longest:.1f}"
    detail = f"${budget:.2f} lasts for {span} hours of training"
    if hours is None:
        return [Check("budget", True, f"{detail}; how long it takes there, nobody has measured")]
    takes = f"{detail}; it takes {hours.least:.1f} to {hours.greatest:.1f} there ({hours.origin})"
    return [Check("budget", True if hours.greatest <= shortest else None, takes)]


def _memory(workspace: Workspace, settings: Settings, job: Job, gpu_bytes: int | None) -> list[Check]:
    fits, reason = memory_problem(workspace, settings, job, gpu_bytes)
    if fits is None:
        detail = (
            "not known: fit has not traced this training (cloud plan --trace), or the GPU's memory is not known"
        )
        return [Check("memory", None, detail)]
    fix = "choose a bigger GPU, or smaller settings"
    return [Check("memory", fits, "it fits, by fit's forecast" if fits else str(reason), "" if fits else fix, usage=True)]  # fmt: skip
