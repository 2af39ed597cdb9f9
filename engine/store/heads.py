"""The heads of the audit log that went out in messages, remembered beside it.

A chain alone cannot show that its end was cut off. So each message about a promotion carries the hash of the last
line then (the head): whoever keeps the message can prove it, and this host remembers what it sent.
"""

from __future__ import annotations

from typing import Any

from engine.errors import Failed
from engine.store.clock import timestamp
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace

_KEPT = 200


def note_head(workspace: Workspace, event: dict[str, Any]) -> None:
    """Remember that this event's hash went out in a message."""
    known = [*sent_heads(workspace), {"id": event["id"], "hash": event["hash"], "at": timestamp()}]
    write_json(workspace.state / "heads.json", known[-_KEPT:])


def sent_heads(workspace: Workspace) -> list[dict[str, Any]]:
    """The heads that went out in messages, oldest first: `{id, hash, at}`."""
    try:
        found = read_json(workspace.state / "heads.json")
    except Failed:
        return []  # the messages themselves still have them: `events --verify --head HASH`
    entries = found if isinstance(found, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("hash"), str)]
