"""Budgets in time: when a machine must be gone, and which shares of a budget people are told of."""

from __future__ import annotations

from collections.abc import Sequence

from engine.cloud.ledger import Entry
from engine.config.schema import Cloud

MARKS = ("50", "80", "100")  # percent
_LONGEST_S = 100 * 365 * 86400.0  # no timer is set for later, however large a budget


def stop_at(entry: Entry, cloud: Cloud, now: float) -> float | None:
    """When the machine must be gone, seconds since the epoch: `cloud.reserve_minutes` before its budget is spent at
    its highest price. None: no budget, or it costs nothing."""
    if entry.budget_usd is None or not entry.hourly_usd:
        return None
    left = entry.budget_usd - entry.cost_usd(now)
    return now + min(left / entry.hourly_usd * 3600, _LONGEST_S) - cloud.reserve_minutes * 60


def share_spent(entry: Entry, now: float) -> float:
    """The share of the budget that is spent, 0 where there is none."""
    return entry.cost_usd(now) / entry.budget_usd if entry.budget_usd else 0.0


def budget_alert(share: float, told: Sequence[str]) -> str | None:
    """The highest mark that is reached and was not told yet, in percent; a lower one is not told any more."""
    reached = [mark for mark in MARKS if share * 100 >= int(mark)]
    said = max((int(mark) for mark in told if mark in MARKS), default=0)
    return reached[-1] if reached and int(reached[-1]) > said else None
