"""The layout of a workspace has a version; an older one is brought up step by step, a newer one left alone.

`schema.json` holds the version; a workspace in use without that file is of version 1. Each step in `STEPS` may
be cut short and done again.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

from engine.errors import Failed, UsageError
from engine.store.events import append_event
from engine.store.files import read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace

VERSION = 2


def version(workspace: Workspace) -> int:
    """The workspace's version; an empty one has ours.

    Raises:
        UsageError: it was made by a newer Understudy, or the file says nothing sensible.
    """
    path = workspace.root / "schema.json"
    try:
        found = read_json(path)
    except Failed:
        found = {}
    if found is None:
        return 1 if workspace.events.exists() or workspace.slots.exists() or workspace.state.exists() else VERSION
    number = found.get("version") if isinstance(found, dict) else None
    if not isinstance(number, int) or number < 1:
        raise UsageError(f"{path} is damaged", f'write {{"version": {VERSION}}} into it', kind="damaged")
    if number > VERSION:
        raise UsageError(
            f"the workspace {workspace.root} is of version {number}, this Understudy knows {VERSION}",
            "use the newer Understudy, or another workspace",
            kind="newer_workspace",
        )
    return number


def migrate(workspace: Workspace) -> list[str]:
    """Bring the workspace to `VERSION`; what was changed, a sentence each."""
    done: list[str] = []
    with hold(workspace.root / "locks" / "schema.lock", "migrate", wait=True):
        for number in range(version(workspace), VERSION):
            done += STEPS[number](workspace)
            write_json(workspace.root / "schema.json", {"version": number + 1})
    if done:
        append_event(workspace, "migrated", f"version {VERSION}", {"changes": done})
    return done


def ensure(workspace: Workspace) -> None:
    """Migrate where that is needed and the folder may be written; look-only accounts read older versions too."""
    if workspace.root.is_dir() and version(workspace) < VERSION and os.access(workspace.root, os.W_OK):
        migrate(workspace)


def _name_messages(workspace: Workspace) -> list[str]:
    """1 → 2: what waits in the outbox gets an id, so that a repeat of it can be told."""
    named = 0
    for path in sorted((workspace.state / "outbox").glob("[0-9]*-[0-9]*.json")):
        try:
            entry = read_json(path)
        except Failed:
            continue  # the outbox drops it and says so
        if isinstance(entry, dict) and "id" not in entry:
            write_json(path, {**entry, "id": secrets.token_hex(4), "tries": 1, "next": entry.get("at")})
            named += 1
    return [f"{named} waiting message{'s have' if named > 1 else ' has'} an id now"] if named else []


STEPS: dict[int, Callable[[Workspace], list[str]]] = {1: _name_messages}
