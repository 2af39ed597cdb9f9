"""A machine as people see it: state, job, GPU, cost, time and budget left. For `cloud status` and the stream."""

from __future__ import annotations

from typing import Any

from engine.cloud.ledger import Entry, Ledger, seconds
from engine.cloud.machines import guard_lock
from engine.cloud.money import share_spent
from engine.protocol import NEWEST, Cloud, CloudMachine
from engine.store.clock import timestamp
from engine.store.locks import holder
from engine.store.workspace import Workspace


def list_machines(workspace: Workspace, everything: bool = False) -> list[dict[str, Any]]:
    """The machines of the ledger, those that may cost money first; a quick verb may ask.

    Args:
        everything: those whose names were used again too.

    Raises:
        Failed: a page of the ledger is damaged.
    """
    ledger, now = Ledger(workspace), seconds()
    entries = ledger.entries() + (ledger.past() if everything else [])
    return [describe(workspace, entry, now) for entry in entries]


def describe(workspace: Workspace, entry: Entry, now: float) -> dict[str, Any]:
    """One machine. Money in US dollars, times as ISO 8601, durations in seconds; None: not known.

    `state` is the provider's word, or `launching` and `ending` while the guard is at it; `left_s` the time until the
    machine ends by its budget, `eta_s` the training's own estimate.
    """
    last, progress = entry.last, (entry.last or {}).get("progress") or {}
    state = last.get("state") or "launching"
    if not entry.open:
        state = "gone"
    elif entry.wanted == "down":
        state = "ending"
    elif entry.machine is None and state in ("gone", "launching"):
        state = "launching"
    stop = entry.job.stop_at
    return {
        "name": entry.name,
        "provider": entry.provider,
        "gpu": (entry.machine.gpu if entry.machine else None) or entry.job.gpu,
        "spot": entry.job.spot,
        "address": entry.machine.address if entry.machine else None,
        "state": state,
        "job": last.get("job") or "unknown",
        "run": last.get("run"),
        "epoch": progress.get("epoch"),
        "epochs": progress.get("epochs"),
        "samples_per_s": progress.get("samples_per_s"),
        "eta_s": progress.get("eta_s"),
        "gpu_use": last.get("gpu_use"),
        "gpu_memory_used_bytes": last.get("gpu_memory_used_bytes"),
        "gpu_memory_total_bytes": last.get("gpu_memory_total_bytes"),
        "hourly_usd": entry.hourly_usd,
        "cost_usd": round(entry.cost_usd(now), 4),
        "budget_usd": entry.budget_usd,
        "spent": round(share_spent(entry, now), 4) if entry.budget_usd else None,
        "left_s": max(0.0, round(stop - now, 1)) if stop is not None and entry.open else None,
        "paid_s": round(sum((part.until or now) - part.since for part in entry.intervals), 1),
        "launches": entry.launches,
        "idle_s": _idle_s(entry, now),
        "guarded": holder(guard_lock(workspace, entry.name)) is not None if entry.open else None,
        "why": entry.failed or entry.why or str(last.get("reason") or ""),
        "started_at": timestamp(entry.started_at),
        "stop_at": timestamp(stop) if stop is not None else None,
        "closed_at": timestamp(entry.closed_at) if entry.closed_at is not None else None,
        "checked_at": timestamp(entry.checked_at) if entry.checked_at is not None else None,
    }


def snapshot(workspace: Workspace, newest: int = NEWEST) -> Cloud:
    """The machines for the stream: nothing in it changes with the clock alone.

    Raises:
        Failed: a page of the ledger is damaged.
    """
    entries = Ledger(workspace).entries()
    return Cloud(machines=[_machine(workspace, entry) for entry in entries[:newest]], total=len(entries))


def _machine(workspace: Workspace, entry: Entry) -> CloudMachine:
    last = entry.last or {}
    running = next((part for part in entry.intervals if part.until is None), None)
    seen = describe(workspace, entry, running.since if running else 0.0)
    kept = {name: value for name, value in seen.items() if name in CloudMachine.__dataclass_fields__}
    active = last.get("active_at")
    return CloudMachine(
        **kept
        | {
            "cost_usd": entry.cost_usd(running.since if running else 0.0),
            "since": timestamp(running.since) if running else None,
            "active_at": timestamp(active) if active is not None and last.get("state") == "running" else None,
            "idle_limit_s": entry.job.idle_minutes * 60.0,
        }
    )


def _idle_s(entry: Entry, now: float) -> float | None:
    """How long nothing has worked on a machine that costs money."""
    active = (entry.last or {}).get("active_at")
    if not entry.open or active is None or (entry.last or {}).get("state") != "running":
        return None
    return max(0.0, round(now - max(float(active), entry.asked_at or 0.0), 1))
