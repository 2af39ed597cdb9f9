"""Messages that have not arrived: kept in the workspace until every channel has them.

An entry is written before its message is first sent and removed when every channel has it, so a crash
in between repeats the message, marked as a repeat, and never loses it. How long a service asked to be left
alone is kept too, for all messages.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.errors import Failed
from engine.store.clock import now, parse, timestamp
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace

KEPT = 200
KEPT_S = 7 * 24 * 3600.0
_SENDING_S = 300.0  # an entry whose writer lives is taken for under way until it is this old
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 30.0, 1800.0  # between two tries of one entry, doubled each time


def folder(workspace: Workspace) -> Path:
    return workspace.state / "outbox"


def new_entry(kind: str, text: str, channels: list[str]) -> dict[str, Any]:
    """What is kept of a message; `id` is the same each time it is sent."""
    return {
        "id": secrets.token_hex(4),
        "kind": kind,
        "text": text,
        "at": timestamp(),
        "channels": channels,
        "tries": 0,
        "next": timestamp(),
    }


def put(workspace: Workspace, entry: dict[str, Any]) -> Path:
    """Write down a message that is about to go out; returns its place."""
    path = folder(workspace) / f"{now().timestamp():.6f}-{os.getpid()}.json"
    write_json(path, entry)
    return path


def settle(path: Path, entry: dict[str, Any], left: list[str]) -> None:
    """Remove the entry, or keep it for the channels that are left and put the next try off."""
    if not left:
        path.unlink(missing_ok=True)
        return
    pause_s = min(_FIRST_PAUSE_S * 2 ** int(entry.get("tries") or 0), _LONGEST_PAUSE_S)
    later = {"tries": int(entry.get("tries") or 0) + 1, "next": timestamp(now() + timedelta(seconds=pause_s))}
    write_json(path, {**entry, "channels": left, **later})


def waiting(workspace: Workspace) -> tuple[list[tuple[Path, dict[str, Any]]], int]:
    """Entries that still wait, oldest first, and how many were given up: too old, too many, or damaged."""
    found, dropped = [], 0
    for path in _paths(workspace):
        entry = _read(path)
        if entry is None:
            dropped += _drop(path)
        elif not _under_way(path, entry):
            found.append((path, entry))
    for path, _ in found[:-KEPT]:
        dropped += _drop(path)
    return found[-KEPT:], dropped


def due(workspace: Workspace) -> bool:
    """Whether a message waits whose next try has come, on a channel that may be tried."""
    paused = pauses(workspace)
    for path in _paths(workspace):
        entry = _read(path)
        if entry is None:
            return True  # to be dropped, and said
        if not _under_way(path, entry) and is_due(entry) and any(c not in paused for c in entry["channels"]):
            return True
    return False


def is_due(entry: dict[str, Any]) -> bool:
    return parse(str(entry.get("next") or entry["at"])) <= now()


def pause(workspace: Workspace, channel: str, seconds: float) -> None:
    """Leave a channel alone for so long: it asked for that."""
    until = timestamp(now() + timedelta(seconds=seconds))
    write_json(folder(workspace) / "paused.json", {**pauses(workspace), channel: until})


def pauses(workspace: Workspace) -> dict[str, str]:
    """The channels that asked to be left alone, until when."""
    try:
        found = read_json(folder(workspace) / "paused.json")
        return {str(name): until for name, until in dict(found or {}).items() if parse(until) > now()}
    except (Failed, TypeError, ValueError):
        return {}  # a service that is asked too early says so again


def _paths(workspace: Workspace) -> list[Path]:
    return sorted(folder(workspace).glob("[0-9]*-[0-9]*.json"))


def _read(path: Path) -> dict[str, Any] | None:
    """The entry, or None where it is damaged or too old."""
    try:
        entry = dict(read_json(path) or {})
        age_s = (now() - parse(entry["at"])).total_seconds()
        parse(str(entry.get("next") or entry["at"]))
    except FileNotFoundError:
        return None
    except (Failed, OSError, KeyError, TypeError, ValueError):
        return None
    sound = isinstance(entry.get("text"), str) and isinstance(entry.get("channels"), list) and age_s < KEPT_S
    return entry if sound else None


def _under_way(path: Path, entry: dict[str, Any]) -> bool:
    """Whether its writer lives and is sending it for the first time right now."""
    if entry.get("tries") or (now() - parse(entry["at"])).total_seconds() > _SENDING_S:
        return False
    try:
        pid = int(path.stem.rpartition("-")[2])
        if pid == os.getpid():
            return False
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _drop(path: Path) -> int:
    with contextlib.suppress(OSError):
        path.unlink()
        return 1
    return 0
