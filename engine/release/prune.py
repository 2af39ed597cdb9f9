"""Which old releases and backups may go, and removing them: never what something still needs.

Kept are the newest ones and the young ones (`[retention]`), what a slot holds, the last good release (what
AS-IS held before, so that a rollback finds it), the last verified backup, whatever an unfinished change or a
bake names, and the release of every backup that stays.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import Failed
from engine.release import bake
from engine.release.backups import Backup, find_backups
from engine.release.bundle import SUFFIX
from engine.release.journal import Intent, pending, slots_lock
from engine.release.slots import read_pointer
from engine.store.clock import parse
from engine.store.workspace import SLOTS, Workspace

_DAY_S = 86400.0


@dataclass
class Plan:
    """What would go, and why the rest stays (`kept`: name to reason)."""

    backups: list[Path] = field(default_factory=list)
    releases: list[Path] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "backups": [path.name for path in self.backups],
            "releases": [path.stem for path in self.releases],
            "bytes": sum(path.stat().st_size for path in (*self.backups, *self.releases)),
            "kept": self.kept,
        }


def prune(
    workspace: Workspace, settings: Settings, *, dry_run: bool = False, wait: bool = False
) -> dict[str, Any]:
    """Remove what `[retention]` lets go.

    Returns:
        `{removed, backups, releases, bytes, kept}`: names of the files that went (with `dry_run`: would go),
        their bytes, and why others stay beyond their number and age.

    Raises:
        Busy: another command changes a slot.
        Failed: a slot's pointer is damaged, so that nobody knows what is needed.
    """
    if dry_run:
        return {"removed": False, **_plan(workspace, settings).as_json()}
    with slots_lock(workspace, "prune", wait):
        plan = _plan(workspace, settings)
        said = plan.as_json()
        for path in (*plan.backups, *plan.releases):
            path.unlink(missing_ok=True)
    return {"removed": bool(plan.backups or plan.releases), **said}


def _plan(workspace: Workspace, settings: Settings) -> Plan:
    plan, limits = Plan(), settings.retention
    young = time.time() - limits.days * _DAY_S
    begun = pending(workspace)
    baking = bake.needed(workspace)
    backups = find_backups(workspace, settings.port("asis"))
    verified = next((backup for backup in backups if backup.verified), None)
    needed = _needed(workspace, begun, backups, baking)
    staying: list[Backup] = []
    for index, backup in enumerate(backups):
        why = None
        if index >= limits.backups and parse(backup.at).timestamp() < young:
            why = (
                "the last verified backup"
                if verified and backup.name == verified.name
                else needed.get(backup.name)
            )
            if why is None:
                plan.backups.append(backup.path)
                continue
            plan.kept[backup.name] = why
        staying.append(backup)
    for backup in staying:
        if backup.release:
            needed.setdefault(backup.release, f"the release of {backup.name}")
    found = [path for path in workspace.releases.glob(f"*{SUFFIX}") if not path.name.startswith(".")]
    for index, path in enumerate(sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)):
        if index < limits.releases or path.stat().st_mtime >= young:
            continue
        if path.stem in needed:
            plan.kept[path.stem] = needed[path.stem]
        else:
            plan.releases.append(path)
    return plan


def _needed(workspace: Workspace, begun: Intent | None, backups: list[Backup], baking: set[str]) -> dict[str, str]:
    """Releases and backups that must stay, and why."""
    needed: dict[str, str] = {}
    asis = read_pointer(workspace, "asis")
    for slot in SLOTS:
        if pointer := read_pointer(workspace, slot):
            needed[pointer.release] = f"{slot} holds it"
    last_good = next(
        (backup for backup in backups if backup.verified and not (asis and backup.release == asis.release)), None
    )
    if last_good and last_good.release:
        needed.setdefault(last_good.release, "the last good release")
        needed.setdefault(last_good.name, "the backup of the last good release")
    if begun is not None:
        for name in (begun.previous, begun.target, begun.backup, begun.detail.get("backup")):
            if isinstance(name, str):
                needed.setdefault(name, "an unfinished change names it")
    for name in baking:
        needed.setdefault(name, "the bake may go back to it")
    return needed


def prune_if_asked(workspace: Workspace, settings: Settings) -> dict[str, Any] | None:
    """`prune` after a change of a slot, where `retention.automatic` says so; it never fails that change."""
    if not settings.retention.automatic:
        return None
    try:
        return prune(workspace, settings, wait=True)
    except (Failed, OSError) as error:
        return {"removed": False, "error": str(error)}
