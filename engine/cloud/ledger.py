"""What was rented, since when, and what it has cost: `WORKSPACE/cloud/NAME.json`, one file a machine.

An entry is written before its machine is asked for, so that a crash in between leaves a machine that somebody knows
of. Cost is counted from that moment to the moment at which the provider says that the machine is gone: never less
than the bill.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from engine.cloud.provider import PAID, Job, Machine, MachineState
from engine.errors import Busy, Failed, UsageError, nearest
from engine.store.files import read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


@dataclass(frozen=True)
class Interval:
    """A stretch of time that is paid for, seconds since the epoch; `until` None: it goes on."""

    since: float
    until: float | None
    hourly_usd: float

    def cost_usd(self, now: float) -> float:
        end = now if self.until is None else self.until
        return max(0.0, end - self.since) / 3600 * self.hourly_usd


@dataclass(frozen=True)
class Entry:
    """One machine's page of the ledger.

    Args:
        provider: `skypilot` or `ssh`.
        machine: None until the provider has made it.
        hourly_usd: what is counted; before the provider has said its price, the most that it may be.
        wanted: `up`, `stopped` (its training, not the machine), or `down` for good; the guard makes it so.
        closed_at: when the provider was seen to have nothing of it any more; None: it may cost money.
        launches: how often a machine was asked for; more than one after a preemption.
        asked_at: when it was last asked for; a machine may come up a while after whoever asked was killed.
        failed: what the last launch said when it failed, "" when it did not.
        gone_at: when it was first found gone; it is closed when a later look finds the same.
        last: the last look (`MachineState`), and when it was.
    """

    name: str
    provider: str
    job: Job
    hourly_usd: float
    budget_usd: float | None
    started_at: float
    machine: Machine | None = None
    intervals: tuple[Interval, ...] = ()
    wanted: str = "up"
    why: str = ""
    closed_at: float | None = None
    launches: int = 0
    asked_at: float | None = None
    failed: str = ""
    gone_at: float | None = None
    last: dict[str, Any] = field(default_factory=dict)
    checked_at: float | None = None
    told: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        return self.closed_at is None

    def cost_usd(self, now: float) -> float:
        """What it has cost at `now`, US dollars, to the second."""
        return sum(interval.cost_usd(now) for interval in self.intervals)

    def begun(self, now: float, hourly_usd: float | None = None) -> Self:
        """A machine is asked for: it is counted from now on."""
        price = self.hourly_usd if hourly_usd is None else hourly_usd
        return replace(self.paused(now), intervals=(*self.paused(now).intervals, Interval(now, None, price)))

    def priced(self, hourly_usd: float) -> Self:
        """The provider has said the price: it counts for the whole stretch that goes on."""
        intervals = tuple(
            replace(interval, hourly_usd=hourly_usd) if interval.until is None else interval
            for interval in self.intervals
        )
        return replace(self, hourly_usd=hourly_usd, intervals=intervals)

    def paused(self, now: float) -> Self:
        """The machine is known to cost nothing from now on."""
        intervals = tuple(
            replace(interval, until=now) if interval.until is None else interval for interval in self.intervals
        )
        return replace(self, intervals=intervals)

    def closed(self, now: float) -> Self:
        return replace(self.paused(now), closed_at=now, wanted="down")

    def seen(self, state: MachineState, now: float) -> Self:
        """A look: its state is kept, and counting stops or goes on as the state says.

        One look that finds no machine may be a list that is late: counting stops with the second.
        """
        before = (self.last or {}).get("state")
        entry = replace(self, last=state.as_json(), checked_at=now)
        counted = any(interval.until is None for interval in entry.intervals)
        if state.state in PAID:
            return entry if counted else entry.begun(now, state.hourly_usd)
        sure = state.state == "stopped" or state.ended_at is not None or before == state.state
        if not (counted and sure):
            return entry
        since = max(interval.since for interval in entry.intervals)
        return entry.paused(now if state.ended_at is None else min(now, max(since, state.ended_at)))

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        value |= {"job": self.job.as_json(), "machine": self.machine.as_json() if self.machine else None}
        return value | {"intervals": [asdict(interval) for interval in self.intervals], "told": list(self.told)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        machine = value["machine"]
        return cls(
            **value
            | {
                "job": Job.from_json(value["job"]),
                "machine": Machine.from_json(machine) if machine else None,
                "intervals": tuple(Interval(**item) for item in value["intervals"]),
                "told": tuple(value["told"]),
            }
        )


class Ledger:
    """The entries of one workspace. Every change is one atomic file, under the lock of its name."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.folder = workspace.root / "cloud"

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def entries(self) -> list[Entry]:
        """All of them, open ones first, then the newest first. A damaged file is an error: it may cost money."""
        found = [self.read(name) for name in self.names()]
        return sorted(found, key=lambda entry: (not entry.open, -entry.started_at))

    def read(self, name: str) -> Entry:
        """The entry of this name.

        Raises:
            UsageError: there is none.
            Failed: its file is damaged.
        """
        value = read_json(self._path(name))
        if value is None:
            raise UsageError(
                f"no machine '{name}' in the ledger", nearest(name, self.names()) or "see: cloud status"
            )
        try:
            return Entry.from_json(value)
        except (TypeError, KeyError, ValueError) as error:
            hint = "ask the provider's own console what runs there, then move the file away"
            raise Failed(f"{self._path(name)} is damaged ({error})", hint, kind="damaged") from None

    def create(self, entry: Entry) -> None:
        """Write a new entry; one whose machine is gone gives its name up and is kept beside it.

        Raises:
            UsageError: a name that is none.
            Busy: a machine of this name may still run.
        """
        check_name(entry.name)
        with self.lock(entry.name):
            if before := self.must_be_free(entry.name):
                write_json(self.folder / "past" / f"{entry.name}-{int(before.started_at)}.json", before.as_json())
            self.write(entry)

    def must_be_free(self, name: str) -> Entry | None:
        """The entry of a machine of this name that is gone, if there was one.

        Raises:
            UsageError: a name that is none.
            Busy: a machine of this name may still run.
        """
        check_name(name)
        before = self.read(name) if self._path(name).exists() else None
        if before is not None and before.open:
            raise Busy(f"'{name}' is there already", f"end it with: python -m engine cloud down {name}")
        return before

    def write(self, entry: Entry) -> None:
        """Replace the entry; for the holder of its lock."""
        write_json(self._path(entry.name), entry.as_json())

    @contextmanager
    def change(self, name: str) -> Iterator[list[Entry]]:
        """The entry in a list of one, under its lock; what the list holds at the end is written, if it is another."""
        with self.lock(name):
            before = self.read(name)
            box = [before]
            yield box
            if box[0] != before:
                self.write(box[0])

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        with hold(self._workspace.lock(f"cloud-{name}"), "write the ledger", wait=True, timeout_s=30):
            yield

    def past(self) -> list[Entry]:
        """Entries whose name was used again."""
        return [Entry.from_json(read_json(path)) for path in sorted((self.folder / "past").glob("*.json"))]  # type: ignore[arg-type]

    def files(self, name: str) -> Path:
        """The folder for what belongs to a machine: its task file, its log, what came home from it."""
        return self.folder / name

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def check_name(name: str) -> None:
    """Raises `UsageError` unless `name` may be a machine's: what every cloud takes for one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a machine's name",
            "a letter, then at most 39 lower-case letters, digits or dashes",
        )


def seconds() -> float:
    """The present moment as the ledger writes it."""
    return round(time.time(), 3)
