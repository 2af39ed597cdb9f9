"""Backups of what AS-IS held: verified copies under the documents' names, and what each must contain.

A backup is a byte-for-byte copy of a release file, so its SHA-256 must be that release's id. Which
release that is stands in `state/backups.json`, and in the audit log should that file be lost; a
backup that neither knows is accepted only when its content is a release that is still there.

The name has the port that AS-IS had then. One of another port is AS-IS's where index or log say that it was
made; any other stranger's port is another slot's, or another workspace's.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from engine.errors import Failed, UsageError
from engine.release.bundle import Manifest, Release, read_release, release_path
from engine.release.slots import read_pointer
from engine.store.clock import now, timestamp
from engine.store.events import read_events
from engine.store.files import copy_verified, read_json, sha256_file, write_json
from engine.store.workspace import SLOTS, Workspace

NAME = re.compile(r"model_(?P<port>\d{1,5})_backup_(?P<stamp>\d{8}_\d{6})\.bin")
_STAMP = "%Y%m%d_%H%M%S"
_SPARE_BYTES = 16 * 1024 * 1024  # left free for pointers, the journal and the log


@dataclass(frozen=True)
class Backup:
    """One backup file, made when AS-IS was at `port`. `release` is the id that its content must have, None when
    nothing remembers it."""

    name: str
    path: Path
    port: int
    release: str | None
    at: str
    bytes: int
    verified: bool
    problem: str
    manifest: Manifest | None

    def as_json(self) -> dict[str, Any]:
        origin = self.manifest.checkpoint if self.manifest else None
        return {
            "name": self.name,
            "port": self.port,
            "release": self.release,
            "cycle": origin.cycle if origin else None,
            "accuracy": origin.accuracy if origin else None,
            "at": self.at,
            "bytes": self.bytes,
            "verified": self.verified,
            "problem": self.problem or None,
        }


def free_name(workspace: Workspace, port: int, moment: datetime | None = None) -> str:
    """The name of a backup made now; a taken one moves to the next free second."""
    moment = moment or now()
    while True:
        name = f"model_{port}_backup_{moment.strftime(_STAMP)}.bin"
        path = workspace.backups / name
        if not path.exists() and not path.is_symlink():
            return name
        moment += timedelta(seconds=1)


def write_backup(workspace: Workspace, name: str, release: Release) -> None:
    """Copy `release` to the new backup `name` and read the copy back against its id.

    Raises:
        Failed: the release file or the copy is not what its id says, or the disk has no room.
    """
    workspace.backups.mkdir(parents=True, exist_ok=True)
    needed = release.path.stat().st_size + _SPARE_BYTES
    free = shutil.disk_usage(workspace.backups).free
    if free < needed:
        raise Failed(
            f"no room for the backup: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free",
            "free disk space; without a verified backup nothing is promoted",
            kind="disk_full",
        )
    copy_verified(release.path, workspace.backups / name, release.id)


def remember(workspace: Workspace, name: str, release: str) -> None:
    """Note which release a backup holds. Only the release transaction calls this, under its lock."""
    known = _index(workspace)
    if known.get(name) != release:
        write_json(_index_path(workspace), {**known, name: release})


def find_backups(workspace: Workspace, port: int, *, verify: bool = True) -> list[Backup]:
    """AS-IS's backups, newest first, also those from when it was not yet at `port`.

    Args:
        verify: read every file and compare its hash. Without it `verified` is False and `problem` "".
    """
    found = []
    for path in workspace.backups.glob("model_*_backup_*.bin"):
        match = NAME.fullmatch(path.name)
        if match and path.is_file() and not path.is_symlink():
            found.append((match, path))
    known = _known(workspace, [path.name for _, path in found])
    return [
        _inspect(workspace, path, match, known.get(path.name), verify)
        for match, path in sorted(found, key=lambda item: item[0]["stamp"], reverse=True)
        if int(match["port"]) == port or path.name in known
    ]


def find_backup(workspace: Workspace, port: int, name: str) -> Backup:
    """The verified backup called `name` (`.bin` may be left out).

    Raises:
        UsageError: not the name of one of this slot's backups; the good ones are listed.
        Failed: the file is damaged; the good ones are listed.
    """
    name = name if name.endswith(".bin") else f"{name}.bin"
    match = NAME.fullmatch(name)
    path = workspace.backups / name
    if match is None:
        raise UsageError(f"'{name}' is not a backup's name", _good_ones(workspace, port), kind="unknown_backup")
    known = _known(workspace, [name])
    if int(match["port"]) != port and name not in known:
        raise UsageError(
            f"'{name}' is none of AS-IS's: it is at {port}, and nothing here remembers a backup of it at "
            f"{match['port']}",
            _good_ones(workspace, port),
            kind="unknown_backup",
        )
    if path.is_symlink() or not path.is_file():
        what = "is a link, not a backup" if path.is_symlink() else "does not exist"
        raise UsageError(f"backup '{name}' {what}", _good_ones(workspace, port), kind="unknown_backup")
    backup = _inspect(workspace, path, match, known.get(name), True)
    if not backup.verified:
        raise Failed(f"backup '{name}' {backup.problem}", _good_ones(workspace, port), kind="damaged")
    return backup


def _good_ones(workspace: Workspace, port: int) -> str:
    good = [backup.name for backup in find_backups(workspace, port) if backup.verified]
    return (
        f"good backups: {', '.join(good[:5])}{' ...' if len(good) > 5 else ''}"
        if good
        else "there is no good backup"
    )


def _inspect(workspace: Workspace, path: Path, name: re.Match[str], release: str | None, verify: bool) -> Backup:
    problem, manifest, verified = "", None, False
    try:
        if verify:
            actual = sha256_file(path)
            if release is None and _is_known_release(workspace, actual):
                release = actual
            if release is None:
                problem = "cannot be verified: nothing here remembers what it must contain"
            elif actual != release:
                problem = f"is damaged: its content is {actual[:8]}, not {release[:8]}"
            verified = not problem
        manifest = read_release(path).manifest
    except (Failed, OSError) as error:
        verified = False
        problem = problem or f"cannot be read ({error})"
        original = release_path(workspace, release) if release else None
        if original and original.is_file():
            manifest = read_release(original).manifest
    try:
        at = timestamp(datetime.strptime(name["stamp"], _STAMP).astimezone())
    except ValueError:
        at = timestamp(path.stat().st_mtime)
    size = path.stat().st_size
    return Backup(path.name, path, int(name["port"]), release, at, size, verified, problem, manifest)


def _index_path(workspace: Workspace) -> Path:
    return workspace.state / "backups.json"


def _index(workspace: Workspace) -> dict[str, str]:
    try:
        found = read_json(_index_path(workspace))
    except Failed:  # it is an index: the log knows the same
        return {}
    return {str(name): str(release) for name, release in found.items()} if isinstance(found, dict) else {}


def _known(workspace: Workspace, names: list[str]) -> dict[str, str]:
    """Which release each backup holds that was made here, by the index; by the log where that lacks one of `names`."""
    known = _index(workspace)
    if all(name in known for name in names):
        return known
    for event in read_events(workspace):
        detail = event["detail"]
        if detail.get("backup_made") and detail.get("from"):
            known.setdefault(detail["backup_made"], detail["from"])
    return known


def _is_known_release(workspace: Workspace, identity: str) -> bool:
    if release_path(workspace, identity).is_file():
        return True
    for slot in SLOTS:
        try:
            pointer = read_pointer(workspace, slot)
        except Failed:
            continue
        if pointer and pointer.release == identity:
            return True
    return False
