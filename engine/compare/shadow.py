"""What shadow traffic leaves on the disk, one folder for each pair of releases: `shadow/ASIS-TOBE/`.

`counts.json` says how often the two agreed; `items/ID.json` and `items/ID.image` are a request on which they differ
and that waits for a label. The server of AS-IS writes them, `label` reads them. An image holds what a client sent:
folders are 0700, files 0600, nothing is kept unless `shadow.keep` is on, and nothing longer than
`shadow.retention_days`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from engine.config.schema import Shadow as Settings
from engine.errors import Failed
from engine.store.clock import parse, timestamp
from engine.store.files import atomic_write, read_json
from engine.store.workspace import Workspace

_NAME = 16  # hex digits of a release in the folder's name
_ID = 12
_SWEEP_S = 600.0
_YOUNG_S = 60.0


@dataclass(frozen=True)
class Said:
    """A release's answer: its best label and the probability it gave it."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Item:
    """A request on which the two differ. `id` is the beginning of the image's SHA-256: an image is kept once."""

    id: str
    sha256: str
    at: str
    bytes: int
    asis: Said
    tobe: Said


@dataclass
class Counts:
    """Mirrored images of one pair of releases; each image once, as far as the server remembers.

    `mirrored` = agreed + differed; `failed`: TO-BE gave no answer in time; `kept` of those that differed; `dropped`
    for want of room. What was not even tried because TO-BE was slower than the traffic is `passed_over`.
    """

    asis: str
    tobe: str
    since: str = ""
    at: str = ""
    agreed: int = 0
    differed: int = 0
    failed: int = 0
    passed_over: int = 0
    kept: int = 0
    dropped: int = 0

    @property
    def mirrored(self) -> int:
        return self.agreed + self.differed


def pair_folder(workspace: Workspace, asis: str, tobe: str) -> Path:
    return workspace.root / "shadow" / f"{asis[:_NAME]}-{tobe[:_NAME]}"


def item_id(sha256: str) -> str:
    return sha256[:_ID]


def read_counts(workspace: Workspace, asis: str, tobe: str) -> Counts:
    """The counts of a pair; zeros where nothing was mirrored, or where a crash of the host spoilt the file."""
    try:
        found = read_json(pair_folder(workspace, asis, tobe) / "counts.json")
    except Failed:
        found = None
    if not isinstance(found, dict) or (found.get("asis"), found.get("tobe")) != (asis, tobe):
        return Counts(asis, tobe, since=timestamp())
    known = {field.name for field in fields(Counts)}
    return Counts(**{key: value for key, value in found.items() if key in known})


def write_counts(workspace: Workspace, counts: Counts) -> None:
    counts.at = timestamp()
    folder = _private(pair_folder(workspace, counts.asis, counts.tobe))
    atomic_write(folder / "counts.json", json.dumps(asdict(counts)) + "\n", 0o600)


def images_of(workspace: Workspace, asis: str, tobe: str) -> Path:
    return pair_folder(workspace, asis, tobe) / "items"


def read_items(workspace: Workspace, asis: str, tobe: str) -> dict[str, Item]:
    """The requests of a pair that are kept, by their id, oldest first."""
    found = []
    for path in images_of(workspace, asis, tobe).glob("*.json"):
        with contextlib.suppress(Failed, OSError, KeyError, TypeError):
            value: dict[str, Any] = read_json(path) or {}
            found.append(Item(**{**value, "asis": Said(**value["asis"]), "tobe": Said(**value["tobe"])}))
    return {item.id: item for item in sorted(found, key=lambda item: (item.at, item.id))}


def kept_ids(workspace: Workspace, asis: str, tobe: str) -> set[str]:
    """The ids of the requests of a pair that are kept, by their names alone."""
    return {path.stem for path in images_of(workspace, asis, tobe).glob("*.json")}


def image_path(workspace: Workspace, asis: str, tobe: str, identity: str) -> Path:
    return images_of(workspace, asis, tobe) / f"{identity}.image"


class Keeper:
    """Keeps requests within the bounds of the settings, over all pairs; for the one server that writes."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace, self._settings = workspace, settings
        self._sweep_at = 0.0
        self._count = self._bytes = 0

    def keep(self, asis: str, tobe: str, item: Item, image: bytes) -> bool | None:
        """Keep an image: True; False when there is no room for it, None when it is kept already."""
        self.sweep()
        folder = _private(images_of(self._workspace, asis, tobe))
        if (folder / f"{item.id}.json").exists():
            return None
        settings = self._settings
        if self._count >= settings.keep_images or self._bytes + len(image) > settings.keep_bytes:
            return False
        atomic_write(folder / f"{item.id}.image", image, 0o600)
        atomic_write(folder / f"{item.id}.json", json.dumps(asdict(item), ensure_ascii=False) + "\n", 0o600)
        self._count, self._bytes = self._count + 1, self._bytes + len(image)
        return True

    def sweep(self) -> None:
        """Every few minutes: delete what was kept too long, and count what is there."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + _SWEEP_S
        drop_old(self._workspace, self._settings.retention_days)
        sizes = [path.stat().st_size for path in _files(self._workspace, ".image")]
        self._count, self._bytes = len(sizes), sum(sizes)


def drop_old(workspace: Workspace, retention_days: float) -> int:
    """Delete what clients sent longer ago than that, of every pair; the number of requests deleted.

    Labels stay: `labels.jsonl` holds hashes and class names, no image.
    """
    now, dropped = parse(timestamp()), 0
    for path in _files(workspace, ".json"):
        try:
            value: dict[str, Any] = read_json(path) or {}
            old = (now - parse(value["at"])).total_seconds() > retention_days * 86400
        except (Failed, KeyError, TypeError, ValueError):
            old = True  # nobody could label it
        if old:
            path.with_suffix(".image").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            dropped += 1
    for path in _files(workspace, ".image"):
        # A crash left it without its description; a young one may be about to get it.
        if not path.with_suffix(".json").exists() and time.time() - path.stat().st_mtime > _YOUNG_S:
            path.unlink(missing_ok=True)
    return dropped


def _files(workspace: Workspace, suffix: str) -> Iterator[Path]:
    for path in (workspace.root / "shadow").glob(f"*/items/*{suffix}"):
        if not path.name.startswith("."):
            yield path


def _private(folder: Path) -> Path:
    """The folder, made with all its missing parents for the owner alone."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
    return folder
