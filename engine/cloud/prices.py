"""The price table: built-in rows, the config's, and those fetched from SkyPilot's catalogue, each with its day."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import tomli

from engine.config import Settings
from engine.errors import Failed, UsageError, nearest
from engine.store.clock import now
from engine.store.files import read_json, write_json

_CATALOGUE = "SkyPilot's catalogue"
_MANY = 0.9  # of each further GPU's speed what several of one machine add, at most


@dataclass(frozen=True)
class Row:
    """One GPU of one provider.

    Args:
        gpu: as people write it; `A100-80GB:8` for a machine of eight.
        memory_gb: of all its GPUs.
        spot_usd: None where it is not offered.
        speedup: least and greatest, over the documents' CPU of 8 cores; None: nobody has measured it.
        at: the day of the prices, YYYY-MM-DD.
        source: `documents`, `config` or `skypilot` (its catalogue).
    """

    provider: str
    gpu: str
    memory_gb: float
    hourly_usd: float
    spot_usd: float | None
    speedup: tuple[float, float] | None
    at: str
    source: str

    @property
    def count(self) -> int:
        return gpu_count(self.gpu)[1]

    @property
    def gpu_bytes(self) -> int:
        """Of one GPU, as its maker counts."""
        return int(self.memory_gb / self.count * 1e9)

    @property
    def origin(self) -> str:
        """`documents of 2025-09-09`."""
        return f"{_CATALOGUE if self.source == 'skypilot' else self.source} of {self.at}"

    def age_days(self) -> int:
        return (now().date() - date.fromisoformat(self.at)).days


def gpu_count(gpu: str) -> tuple[str, int]:
    """`A100-80GB:8` is eight of an A100-80GB."""
    name, _, count = gpu.partition(":")
    return name, int(count) if count.isdigit() and int(count) else 1


def price_table(settings: Settings, folder: Path) -> list[Row]:
    """All rows that count, of each provider and GPU the newest.

    Args:
        folder: `WORKSPACE/state`, where `refresh` has left its rows.

    Raises:
        UsageError: a row of the config has no proper day.
        Failed: the fetched rows are damaged.
    """
    newest: dict[tuple[str, str], Row] = {}
    for row in (*_builtin(), *_of_config(settings), *_fetched(folder)):
        key = (row.provider.lower(), plain(row.gpu))
        if key not in newest or row.at >= newest[key].at:
            newest[key] = row
    return sorted(newest.values(), key=lambda row: (row.provider, row.hourly_usd, row.gpu))


def find_gpu(rows: Iterable[Row], gpu: str, infra: str | None = None) -> list[Row]:
    """The rows of a GPU as a person names it (`rtx4090`, `RTX 4090`), the cheapest first.

    Args:
        infra: a cloud, or `cloud/region`, that they must be of.

    Raises:
        UsageError: no such GPU in the table.
    """
    rows = [row for row in rows if not infra or row.provider == infra.partition("/")[0].lower()]
    found = [row for row in rows if plain(row.gpu) == plain(gpu)]
    if not found:
        names = {row.gpu for row in rows}
        hint = nearest(gpu, names) or "say what it may cost with --max-hourly, or: cloud plan --refresh"
        raise UsageError(f"no price for a GPU '{gpu}'{f' of {infra}' if infra else ''}", hint, kind="unknown_gpu")
    return sorted(found, key=lambda row: row.hourly_usd)


def gpu_memory(settings: Settings, folder: Path, gpu: str) -> int | None:
    """The bytes of one such GPU by the table; None: it has none of this name."""
    return next((row.gpu_bytes for row in price_table(settings, folder) if plain(row.gpu) == plain(gpu)), None)


def plain(gpu: str) -> str:
    """A GPU's name without what people and drivers write differently: `RTX 4090`, `rtx4090` and `NVIDIA GeForce RTX
    4090` are one."""
    name, count = gpu_count(gpu)
    bare = re.sub(r"nvidia|geforce|tesla|sxm\d?|pcie|[^a-z0-9]", "", name.lower())
    bare = {"a100": "a10040gb", "v10016gb": "v100"}.get(bare, bare)
    return f"{bare}:{count}"


def speedup_of(gpu: str) -> tuple[float, float] | None:
    """What the documents expect of a GPU, least and greatest; several add up to almost so many times as much."""
    name, count = gpu_count(gpu)
    known = {plain(key): value for key, value in _document()["speedups"].items()}
    if (found := known.get(plain(name))) is None:
        return None
    return found[0] * (1 + (count - 1) * _MANY), found[1] * (1 + (count - 1) * _MANY)


def keep_catalogue(folder: Path, offers: dict[str, list[dict[str, Any]]], day: str) -> int:
    """Keep what SkyPilot's catalogue offers (`sky gpus list --all --output json`) as rows; of each cloud and GPU the
    cheapest machine. Returns how many."""
    cheapest: dict[tuple[str, str], Row] = {}
    for items in offers.values():
        for item in items:
            row = _of_catalogue(item, day)
            if row is None:
                continue
            key = (row.provider, plain(row.gpu))
            if key not in cheapest or row.hourly_usd < cheapest[key].hourly_usd:
                cheapest[key] = row
    if not cheapest:
        raise Failed("SkyPilot's catalogue offers no GPU with a price", "check its clouds with: sky check")
    write_json(folder / "cloud_prices.json", [asdict(row) for row in cheapest.values()])
    return len(cheapest)


def _of_catalogue(item: dict[str, Any], day: str) -> Row | None:
    price, spot = item.get("price"), item.get("spot_price")
    count = item.get("accelerator_count") or 0
    if not _is_price(price) or count < 1 or int(count) != count:
        return None
    name = str(item["accelerator_name"])
    gpu = name if count == 1 else f"{name}:{int(count)}"
    known = {plain(key): value for key, value in _document()["memory"].items()}
    there = float(item.get("device_memory") or 0)
    # Runpod's rows of the catalogue have gigabytes where megabytes belong: 80 GB come as 80/1024
    memory = known.get(plain(name)) or round(there * 1024 if there < 1 else there)
    if not memory:
        return None
    return Row(
        str(item["cloud"]).lower(),
        gpu,
        memory * count,
        float(price),  # type: ignore[arg-type]
        float(spot) if _is_price(spot) else None,  # type: ignore[arg-type]
        speedup_of(gpu),
        day,
        "skypilot",
    )


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and value == value and value > 0  # catalogues have NaN for "not offered"


@cache
def _document() -> dict[str, Any]:
    return tomli.loads(resources.files("engine.cloud").joinpath("prices.toml").read_text(encoding="utf-8"))


def _builtin() -> list[Row]:
    return [
        Row(
            speedup=speedup_of(str(item["gpu"])),
            **{"spot_usd": None, "source": "documents", **item},
        )
        for item in _document()["prices"]
    ]


def _of_config(settings: Settings) -> list[Row]:
    rows = []
    for item in settings.cloud.prices:
        try:
            date.fromisoformat(item.at)
        except ValueError:
            raise UsageError(f"'{item.at}' in cloud.prices is no day", "write YYYY-MM-DD") from None
        speedup = (item.speedup[0], item.speedup[1]) if item.speedup else speedup_of(item.gpu)
        rows.append(
            Row(item.provider.lower(), item.gpu, item.memory_gb, item.hourly_usd, item.spot_usd, speedup, item.at,
                item.source)
        )  # fmt: skip
    return rows


def _fetched(folder: Path) -> list[Row]:
    path = folder / "cloud_prices.json"
    try:
        items = read_json(path) or []
        return [Row(**item | {"speedup": tuple(item["speedup"]) if item["speedup"] else None}) for item in items]
    except (TypeError, KeyError):
        raise Failed(f"{path} is damaged", "remove it, or: python -m engine cloud plan --refresh") from None
