"""Remembered facts made again from the audit log, where their file is damaged or gone.

The slots never need them; commands do, and an order of a person (hold, reject, a rollback) must not be lost with
a file. What only saves work (refused hashes, made releases) is simply made again when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.errors import Failed
from engine.store.clock import now
from engine.store.events import read_events
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace


def _hold(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    standing = None
    for event in events:
        if event["kind"] == "held":
            standing = {"at": event["at"], "actor": event["actor"], "reason": event["detail"].get("reason")}
        elif event["kind"] == "unheld":
            standing = None
    return standing


def _rejected(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    marks: dict[str, Any] = {}
    for event in events:
        detail = event["detail"]
        if event["kind"] == "rejected":
            marks[event["subject"]] = {
                "at": event["at"],
                "actor": event["actor"],
                "reason": detail.get("reason"),
                "sha256": detail.get("sha256"),
            }
        elif event["kind"] == "unrejected":
            marks.pop(event["subject"], None)
    return marks or None


def _taken_down(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    found = {
        e["detail"]["from"]: e["at"] for e in events if e["kind"] == "rolled_back" and e["detail"].get("from")
    }
    return found or None


def _backups(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    pairs = ((event["detail"].get("backup_made"), event["detail"].get("from")) for event in events)
    return {backup: release for backup, release in pairs if backup and release} or None


FROM_LOG: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any] | None]] = {
    "hold.json": _hold,
    "rejected.json": _rejected,
    "taken_down.json": _taken_down,
    "backups.json": _backups,
}


def problems(workspace: Workspace) -> dict[str, str]:
    """The files of `state/` that are damaged, or gone though the log says what they held."""
    found = {}
    for path in sorted(workspace.state.glob("*.json")):
        try:
            read_json(path)
        except Failed:
            found[path.name] = "is damaged"
    events = read_events(workspace)
    for name, make in FROM_LOG.items():
        if name not in found and not (workspace.state / name).exists() and make(events) is not None:
            found[name] = "is gone, though the log says what it held"
    return found


def repair(workspace: Workspace) -> list[str]:
    """Move damaged files to `damaged/` and make again what the log knows; what was done, a sentence each."""
    done = []
    events = read_events(workspace)
    for name in problems(workspace):
        path = workspace.state / name
        if path.exists():
            aside = workspace.root / "damaged" / f"{now():%Y%m%d_%H%M%S}-{name}"
            aside.parent.mkdir(exist_ok=True)
            path.replace(aside)
        value = FROM_LOG[name](events) if name in FROM_LOG else None
        if value is None:
            done.append(f"{name} was put aside; it is made again when it is needed")
        else:
            write_json(path, value)
            done.append(f"{name} was made again from the log")
    return done
