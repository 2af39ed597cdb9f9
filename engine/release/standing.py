"""Where the checkpoints that became releases stand now, by their hash. Torch-free; opens manifests only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from engine.config import Settings
from engine.errors import Failed
from engine.release.backups import find_backups
from engine.release.bundle import SUFFIX, Origin, read_release
from engine.release.hold import rejected
from engine.release.slots import read_pointer
from engine.store.files import read_json
from engine.store.workspace import SLOTS, Workspace

State = Literal["asis", "tobe", "both", "backup", "rejected", "refused", "released"]


@dataclass(frozen=True)
class Standing:
    """Where a checkpoint stands; `release` made from it, `reason` of a refusal, `origin` what it says of itself."""

    state: State
    release: str | None = None
    reason: str | None = None
    origin: Origin | None = None


def standings(workspace: Workspace, settings: Settings) -> dict[str, Standing]:
    """Every checkpoint that is known by its SHA-256: in a slot, in a backup, released, refused or rejected.

    What a slot holds goes before a backup, that before a rejection, a refusal, and a release that stands nowhere.
    Damaged files are passed over: this shows, it decides nothing.
    """
    found: dict[str, Standing] = {}
    for path in workspace.releases.glob(f"*{SUFFIX}"):
        if path.name.startswith("."):
            continue
        try:
            release = read_release(path)
        except Failed:
            continue
        origin = release.manifest.checkpoint
        found[origin.sha256] = Standing("released", release.id, None, origin)
    for sha256, entry in _refused(workspace).items():
        reason = entry.get("message") if isinstance(entry, dict) else None
        known = found.get(sha256)
        found[sha256] = Standing(
            "refused", known.release if known else None, reason, known.origin if known else None
        )
    for identity, mark in rejected(workspace).items():
        if of := mark.get("sha256"):
            known = found.get(of)
            found[of] = Standing("rejected", identity, mark.get("reason"), known.origin if known else None)
    for backup in find_backups(workspace, settings.port("asis"), verify=False):
        if backup.manifest:
            kept = backup.manifest.checkpoint
            found[kept.sha256] = Standing("backup", backup.release, backup.name, kept)
    held: dict[str, list[str]] = {}
    for slot in SLOTS:
        try:
            pointer = read_pointer(workspace, slot)
        except Failed:
            continue
        if pointer:
            sha256 = pointer.checkpoint.sha256
            held.setdefault(sha256, []).append(slot)
            state: State = "both" if len(held[sha256]) == 2 else "asis" if slot == "asis" else "tobe"
            found[sha256] = Standing(state, pointer.release, None, pointer.checkpoint)
    return found


def _refused(workspace: Workspace) -> dict[str, Any]:
    try:
        value = read_json(workspace.state / "refused.json")
    except Failed:
        return {}
    return value if isinstance(value, dict) else {}
