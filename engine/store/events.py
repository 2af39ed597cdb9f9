"""The audit log: append-only JSON Lines, each line chained to the one before by its hash.

A line is `{id, at, actor, host, kind, subject, detail, prev, hash}`; `hash` is the SHA-256 of the
line's other fields as canonical JSON (sorted keys, no spaces), and `prev` the hash of the line before.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.config.secrets import mask
from engine.errors import Failed
from engine.store.clock import timestamp
from engine.store.files import fsync_folder
from engine.store.locks import hold
from engine.store.workspace import Workspace

KINDS = (
    "trained",
    "synced",
    "refused",
    "deployed",
    "compared",
    "promoted",
    "rolled_back",
    "held",
    "unheld",
    "rejected",
    "notified",
    "alert",
    "started",
    "stopped",
)
GENESIS = "0" * 64
_TAIL = 1 << 16


def actor() -> str:
    """Who acts: the person behind sudo, else the account; with the address an SSH session came from."""
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    came_from = os.environ.get("SSH_CONNECTION", "").split()
    return f"{name} via ssh {came_from[0]}" if came_from else name


def append_event(
    workspace: Workspace, kind: str, subject: str, detail: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Add one event, fsynced, and return it. `detail` must be JSON; secrets in it are masked.

    Raises:
        Failed: the log's last complete line is not one of ours.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown event kind {kind!r}")
    path = workspace.events
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(workspace.lock("events"), "append an event", wait=True):
        made = not path.exists()
        with path.open("a+b") as stream:
            _drop_torn_line(stream.fileno())
            last = _last_line(path)
            event = {
                "id": int(last["id"]) + 1 if last else 1,
                "at": timestamp(),
                "actor": actor(),
                "host": socket.gethostname(),
                "kind": kind,
                "subject": subject,
                "detail": json.loads(mask(json.dumps(detail or {}, ensure_ascii=False))),
                "prev": last["hash"] if last else GENESIS,
            }
            event["hash"] = event_hash(event)
            stream.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        if made:
            fsync_folder(path.parent)
    return event


def event_hash(event: dict[str, Any]) -> str:
    body = {key: value for key, value in event.items() if key != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_events(workspace: Workspace, last: int | None = None) -> list[dict[str, Any]]:
    """The events, newest last; only the newest `last` ones where given. A torn last line is left out."""
    if not workspace.events.exists():
        return []
    lines = _tail_lines(workspace.events, last) if last else workspace.events.read_bytes().split(b"\n")[:-1]
    return [_parse(line, workspace.events) for line in lines if line]


def follow_events(workspace: Workspace, stop: Callable[[], bool], poll_s: float = 0.2) -> Iterator[dict[str, Any]]:
    """Events that are added from now on, until `stop()` is true."""
    offset = workspace.events.stat().st_size if workspace.events.exists() else 0
    while not stop():
        if workspace.events.exists() and workspace.events.stat().st_size > offset:
            with workspace.events.open("rb") as stream:
                stream.seek(offset)
                block = stream.read()
            whole = block[: block.rfind(b"\n") + 1]
            offset += len(whole)
            for line in whole.splitlines():
                yield _parse(line, workspace.events)
        time.sleep(poll_s)


def verify_events(workspace: Workspace) -> str | None:
    """None when every line's hash and link hold, else a sentence that names the first line that fails."""
    previous = GENESIS
    for number, event in enumerate(read_events(workspace), 1):
        if event["prev"] != previous or event["hash"] != event_hash(event):
            return f"line {number} of {workspace.events.name} was changed or its neighbour is missing"
        previous = event["hash"]
    return None


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except (json.JSONDecodeError, UnicodeDecodeError, ValueError):
        raise Failed(f"{path} has a damaged line", "look with: python -m engine doctor", kind="damaged") from None


def _last_line(path: Path) -> dict[str, Any] | None:
    lines = _tail_lines(path, 1)
    return _parse(lines[-1], path) if lines else None


def _tail_lines(path: Path, count: int) -> list[bytes]:
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        block, start = b"", end
        while start > 0 and block.count(b"\n") <= count + 1:
            step = min(_TAIL, start)
            start -= step
            stream.seek(start)
            block = stream.read(step) + block
    lines = block.split(b"\n")[:-1]
    if start > 0:
        lines = lines[1:]
    return [line for line in lines if line][-count:]


def _drop_torn_line(handle: int) -> None:
    """Cut what a crash in the middle of a write left after the last newline."""
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return
    back = size
    while back > 0:
        step = min(_TAIL, back)
        found = os.pread(handle, step, back - step).rfind(b"\n")
        if found >= 0:
            os.ftruncate(handle, back - step + found + 1)
            return
        back -= step
    os.ftruncate(handle, 0)
