"""Which games go into which shard: plans that any number of workers on one folder read and agree on.

`plan_0001.json` is written once, by whoever comes first; later games get a further plan and further shards.
A plan names games by the digest of their text, so that computers may hold them at different places.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.errors import Failed, UsageError
from engine.store.files import create_once
from engine.tasks.go.inventory import Inventory
from engine.tasks.go.records import Record

FORMAT = 1
_NAME = "plan_{:04d}.json"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which games are wanted; a rank as `records.rank_number` counts, a date as yyyymmdd, 0 for any."""

    size: int = 19
    min_rank: int = -99
    since: int = 0
    until: int = 0
    result: str = "any"  # any, known, black, white

    def reason(self, record: Record) -> str | None:
        """Why a game is left out, or None."""
        if self.size and record.size != self.size:
            return f"filtered: a board of size {record.size}"
        if min(record.black_rank, record.white_rank) < self.min_rank:
            return "filtered: a player's rank is lower or not known"
        if self.since and record.date < self.since:
            return "filtered: too old, or its date is not known"
        if self.until and not 0 < record.date <= self.until:
            return "filtered: too new, or its date is not known"
        wanted = {"any": (-1, 0, 1), "known": (-1, 1), "black": (1,), "white": (-1,)}[self.result]
        return None if record.result in wanted else "filtered: its result"


@dataclass(frozen=True, slots=True)
class Planned:
    """One shard to be: its number and its games as (digest, name)."""

    number: int
    games: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Plan:
    filters: Filters
    shards: list[Planned]


def read_plans(folder: Path) -> list[Plan]:
    """Every plan of the folder, oldest first.

    Raises:
        Failed: a plan is damaged.
    """
    plans: list[Plan] = []
    first = 1
    while (path := folder / _NAME.format(len(plans) + 1)).exists():
        try:
            value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            games = [(str(digest), str(name)) for digest, name in value["games"]]
            per = int(value["games_per_shard"])
            filters = Filters(**value["filters"])
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(
                f"{path} is damaged ({error})", "start over with: go reset", kind="damaged_plan"
            ) from None
        shards = [
            Planned(first + index, games[start : start + per])
            for index, start in enumerate(range(0, len(games), per))
        ]
        first += len(shards)
        plans.append(Plan(filters, shards))
    return plans


def extend(
    folder: Path, found: Inventory, filters: Filters, games_per_shard: int, games: int | None
) -> list[Plan]:
    """Plan what no plan has yet, so that at most `games` games are planned in all.

    Raises:
        UsageError: the folder holds games of other filters.
    """
    while True:
        plans = read_plans(folder)
        if plans and plans[0].filters != filters:
            raise UsageError(
                f"{folder} holds games that were chosen by other filters ({_words(plans[0].filters)})",
                "use the same, another go.shards folder, or start over with: go reset",
            )
        known = {digest for plan in plans for shard in plan.shards for digest, _ in shard.games}
        fresh = [(digest, name) for digest, (name, _) in found.games.items() if digest not in known]
        if games is not None:
            fresh = fresh[: max(0, games - len(known))]
        if not fresh:
            return plans
        # in the order of the digests: every shard is a mixture of all sources and years
        value = {
            "format": FORMAT,
            "games_per_shard": games_per_shard,
            "filters": asdict(filters),
            "games": sorted(fresh),
        }
        create_once(folder / _NAME.format(len(plans) + 1), json.dumps(value, ensure_ascii=False).encode())


def _words(filters: Filters) -> str:
    return ", ".join(f"{name}={value}" for name, value in asdict(filters).items())
