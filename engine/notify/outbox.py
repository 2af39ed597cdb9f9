"""Messages that have not arrived: kept in the workspace, sent again with the next one.

An entry is written before its message is first sent and removed when every channel has it, so a crash
in between repeats the message, marked as a repeat, and never loses it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from engine.errors import Failed
from engine.store.clock import now, parse, timestamp
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace

KEPT = 20
KEPT_S = 24 * 3600.0
_SENDING_S = 300.0  # an entry whose writer lives is taken for under way until it is this old


def folder(workspace: Workspace) -> Path:
    return workspace.state / "outbox"


def put(workspace: Workspace, kind: str, text: str, channels: list[str]) -> Path:
    """Write down a message that is about to go to `channels`; returns its entry."""
    path = folder(workspace) / f"{now().timestamp():.6f}-{os.getpid()}.json"
    write_json(path, {"kind": kind, "text": text, "at": timestamp(), "channels": channels})
    return path


def settle(path: Path, entry: dict[str, Any], left: list[str]) -> None:
    """Remove the entry, or keep it for the channels that are left."""
    if left:
        write_json(path, {**entry, "channels": left})
    else:
        path.unlink(missing_ok=True)


def waiting(workspace: Workspace) -> list[tuple[Path, dict[str, Any]]]:
    """Entries that still wait, oldest first. Those too old or too many are dropped, damaged ones too."""
    if not folder(workspace).is_dir():
        return []
    found = []
    for path in sorted(folder(workspace).glob("[0-9]*-[0-9]*.json")):
        try:
            entry = dict(read_json(path) or {})
            age_s = (now() - parse(entry["at"])).total_seconds()
            sound = isinstance(entry["text"], str) and isinstance(entry["channels"], list) and age_s < KEPT_S
        except (Failed, OSError, KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            _drop(path)
        elif age_s > _SENDING_S or not _writer_lives(path):
            found.append((path, entry))
    for path, _ in found[:-KEPT]:
        _drop(path)
    return found[-KEPT:]


def _writer_lives(path: Path) -> bool:
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


def _drop(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
