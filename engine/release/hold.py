"""What an operator decided about candidates: TO-BE on hold, and releases that must not come back."""

from __future__ import annotations

from typing import Any

from engine.errors import Failed
from engine.release.bundle import read_release, release_path, resolve_release
from engine.store.clock import timestamp
from engine.store.events import actor, append_event
from engine.store.files import read_json, write_json
from engine.store.locks import hold as lock
from engine.store.workspace import Workspace

ANOTHER = "deploy another checkpoint; if it was rejected by mistake: python -m engine reject --undo RELEASE"


def held(workspace: Workspace) -> dict[str, Any] | None:
    """`{at, actor, reason}` while TO-BE is on hold, else None."""
    found = read_json(workspace.state / "hold.json")
    return dict(found) if isinstance(found, dict) else None


def hold(workspace: Workspace, reason: str | None = None) -> dict[str, Any]:
    """Keep TO-BE as it is until `unhold`. Returns `{held, changed, at, actor, reason}`."""
    with lock(workspace.lock("marks"), "hold", wait=True):
        standing = held(workspace)
        if standing is not None:
            return {"held": True, "changed": False, **standing}
        mark = {"at": timestamp(), "actor": actor(), "reason": reason}
        write_json(workspace.state / "hold.json", mark)
        append_event(workspace, "held", "TO-BE", {"reason": reason})
        return {"held": True, "changed": True, **mark}


def unhold(workspace: Workspace) -> dict[str, Any]:
    """Let TO-BE change again. Returns `{held, changed}`, and since when and by whom it was held."""
    with lock(workspace.lock("marks"), "unhold", wait=True):
        standing = held(workspace)
        if standing is None:
            return {"held": False, "changed": False}
        (workspace.state / "hold.json").unlink()
        append_event(workspace, "unheld", "TO-BE", {"held_since": standing.get("at")})
        return {"held": False, "changed": True, **standing}


def rejected(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """The releases that an operator rejected: `{release: {at, actor, reason, sha256}}`."""
    found = read_json(workspace.state / "rejected.json")
    return dict(found) if isinstance(found, dict) else {}


def reject(workspace: Workspace, prefix: str, reason: str | None = None) -> dict[str, Any]:
    """Never deploy or promote this release again, nor another made from the same checkpoint, unless `unreject` says so.

    Args:
        prefix: the release's id, or at least its first 4 hex digits.

    Raises:
        UsageError: no release, or more than one, starts so.
    """
    identity = resolve_release(workspace, prefix)
    with lock(workspace.lock("marks"), "reject", wait=True):
        marks = rejected(workspace)
        if identity in marks:
            return {"rejected": identity, "changed": False, **marks[identity]}
        sha256 = _checkpoint(workspace, identity)
        mark = {"at": timestamp(), "actor": actor(), "reason": reason, "sha256": sha256}
        write_json(workspace.state / "rejected.json", {**marks, identity: mark})
        append_event(workspace, "rejected", identity, {"reason": reason, "sha256": sha256})
        return {"rejected": identity, "changed": True, **mark}


def unreject(workspace: Workspace, prefix: str, reason: str | None = None) -> dict[str, Any]:
    """Take a rejection back, with every other one of a release from the same checkpoint: each alone would bar it.

    Args:
        prefix: the id of a release, rejected itself or made from a rejected checkpoint, or its first 4 hex digits.

    Returns:
        `{rejected: None, undone, changed}`, `undone` the releases that were rejected; and `{at, actor, reason}`.

    Raises:
        UsageError: no release, or more than one, starts so.
    """
    with lock(workspace.lock("marks"), "unreject", wait=True):
        marks = rejected(workspace)
        identity = resolve_release(workspace, prefix, marks)
        sha256 = marks[identity].get("sha256") if identity in marks else _checkpoint(workspace, identity)
        undone = [
            one
            for one, mark in marks.items()
            if one == identity or (sha256 is not None and mark.get("sha256") == sha256)
        ]
        result = {"rejected": None, "undone": undone, "changed": bool(undone)}
        if not undone:
            return result
        left = {one: mark for one, mark in marks.items() if one not in undone}
        write_json(workspace.state / "rejected.json", left)
        for one in undone:
            was = {"rejected_at": marks[one].get("at"), "rejected_by": marks[one].get("actor")}
            append_event(workspace, "unrejected", one, {"reason": reason, "sha256": sha256, **was})
        return {**result, "at": timestamp(), "actor": actor(), "reason": reason}


def _checkpoint(workspace: Workspace, identity: str) -> str | None:
    """The SHA-256 of the checkpoint that a release was made from; None where its file is damaged or gone."""
    try:
        return read_release(release_path(workspace, identity)).manifest.checkpoint.sha256
    except Failed:  # such a release can be rejected too
        return None


def rejection(workspace: Workspace, *, release: str | None = None, sha256: str | None = None) -> str | None:
    """Why a release, or any made from the checkpoint `sha256`, must not be used; None when it may."""
    for identity, mark in rejected(workspace).items():
        if identity == release or (sha256 is not None and mark.get("sha256") == sha256):
            why = f": {mark['reason']}" if mark.get("reason") else ""
            when = str(mark.get("at"))[:16].replace("T", " ")
            return f"release {identity[:8]} was rejected by {mark.get('actor')} on {when}{why}"
    return None
