"""What `sync` remembers between two looks, and what it clears away after a crash."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine.release.slots import read_pointer
from engine.store.clock import timestamp
from engine.store.events import append_event, read_events
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace

_ARRIVAL = re.compile(r"([0-9a-f]{64})\.pth(\.part(\.windows)?)?")
_LAST = "last_sync.json"
_SHOWN = 200  # entries of `skipped` kept in the state file


def read_last(workspace: Workspace) -> dict[str, Any]:
    """The last look's record (`last_sync.json`), or {} before the first."""
    found = read_json(workspace.state / _LAST)
    return dict(found) if isinstance(found, dict) else {}


def write_last(workspace: Workspace, last: dict[str, Any], record: dict[str, Any]) -> None:
    """Record a look: the verb's object, `at`, `error`, what was taken last, and how long looks have failed."""
    failing = record.get("error") is not None
    write_json(
        workspace.state / _LAST,
        {
            "at": timestamp(),
            "taken": last.get("taken"),
            **record,
            "skipped": record.get("skipped", [])[:_SHOWN],
            "failures": int(last.get("failures") or 0) + 1 if failing else 0,
            "failing_since": (last.get("failing_since") or timestamp()) if failing else None,
        },
    )


def arrival(workspace: Workspace, sha256: str) -> Path:
    """Where a fetched checkpoint lies until it is a release."""
    return workspace.incoming / f"{sha256}.pth"


def clear_arrivals(workspace: Workspace, keep: str | None = None) -> None:
    """Remove what earlier looks left in `incoming`, except the unfinished part of the checkpoint `keep`, and notes
    that they were killed while writing. Under sync's lock."""
    for note in (_taking(workspace).name, _LAST):
        for path in workspace.state.glob(f".{note}.*.part"):
            path.unlink(missing_ok=True)
    if not workspace.incoming.is_dir():
        return
    for path in workspace.incoming.iterdir():
        found = _ARRIVAL.fullmatch(path.name)
        if found and not (found[1] == keep and found[2]):
            path.unlink(missing_ok=True)


def begin_taking(workspace: Workspace, facts: dict[str, Any]) -> None:
    """Note what is about to be deployed, so that a crash cannot lose its `synced` event."""
    write_json(_taking(workspace), {"at": timestamp(), **facts})


def end_taking(workspace: Workspace, release: str | None) -> None:
    """Append the one `synced` event of what was noted, when TO-BE holds it; forget the note in any case."""
    noted = read_json(_taking(workspace))
    if noted is None:
        return
    pointer = read_pointer(workspace, "tobe")
    arrived = pointer is not None and pointer.checkpoint.sha256 == noted["sha256"]
    if pointer is not None and arrived and not _logged(workspace, noted):
        facts = {key: value for key, value in noted.items() if key != "at"}
        facts |= {"md5": pointer.checkpoint.md5, "release": release or pointer.release}
        append_event(workspace, "synced", noted["path"], facts)
    _taking(workspace).unlink()


def _taking(workspace: Workspace) -> Path:
    return workspace.state / "sync_taking.json"


def _logged(workspace: Workspace, noted: dict[str, Any]) -> bool:
    return any(
        event["kind"] == "synced"
        and event["detail"].get("sha256") == noted["sha256"]
        and event["at"] >= noted["at"]
        for event in read_events(workspace, 50)
    )
