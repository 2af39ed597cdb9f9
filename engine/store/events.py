"""The audit log: append-only JSON Lines, each line chained to the one before by its hash.

A line is `{id, at, actor, host, kind, subject, detail, prev, hash}`; `hash` is the SHA-256 of the
line's other fields as canonical JSON (sorted keys, no spaces), and `prev` the hash of the line before.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.config.secrets import mask
from engine.store import logjson
from engine.store.actor import actor
from engine.store.clock import timestamp
from engine.store.files import fsync_folder
from engine.store.heads import sent_heads
from engine.store.locks import hold
from engine.store.workspace import Workspace

KINDS = (
    "trained",
    "synced",
    "postponed",
    "refused",
    "deployed",
    "compared",
    "promoted",
    "rolled_back",
    "baked",
    "held",
    "unheld",
    "rejected",
    "unrejected",
    "pinned",
    "notified",
    "alert",
    "started",
    "stopped",
    "exported",
    "migrated",
    "restored",
)
GENESIS = "0" * 64
_FIELDS = frozenset(("id", "at", "actor", "host", "kind", "subject", "detail", "prev", "hash"))
_TAIL = 1 << 16


def append_event(
    workspace: Workspace, kind: str, subject: str, detail: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Add one event, fsynced, and return it; JSON logs say it too. `detail` must be JSON; secrets in it are masked.

    A damaged line before it stops nothing: the new one is linked to its bytes, and `verify_events` tells.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown event kind {kind!r}")
    path = workspace.events
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(workspace.lock("events"), "append an event", wait=True):
        made = not path.exists()
        with path.open("a+b") as stream:
            _drop_torn_line(stream.fileno())
            number, link = _last_line(path)
            event = {
                "id": number + 1,
                "at": timestamp(),
                "actor": actor(),
                "host": socket.gethostname(),
                "kind": kind,
                "subject": subject,
                "detail": json.loads(mask(json.dumps(detail or {}, ensure_ascii=False))),
                "prev": link,
            }
            event["hash"] = event_hash(event)
            stream.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        if made:
            fsync_folder(path.parent)
    logjson.happened(event)
    return event


def event_hash(event: dict[str, Any]) -> str:
    body = {key: value for key, value in event.items() if key != "hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_events(workspace: Workspace, last: int | None = None) -> list[dict[str, Any]]:
    """The events, newest last; only the newest `last` ones where given.

    Lines that are no events are left out, a torn last one too; `verify_events` names them.
    """
    if not workspace.events.exists():
        return []
    lines = _tail_lines(workspace.events, last) if last else workspace.events.read_bytes().split(b"\n")[:-1]
    return [event for line in lines if (event := _parse(line)) is not None]


def search_events(workspace: Workspace, needle: str, since: int = 0) -> Iterator[dict[str, Any]]:
    """The events whose line holds `needle` (a hash, an id), newest first; others are not even parsed.

    Args:
        since: a size that the log had: only lines that begin at that byte or later are read.
    """
    if not workspace.events.exists():
        return
    wanted = needle.encode()
    for line in _lines_backward(workspace.events, since):
        if wanted in line and (event := _parse(line)) is not None:
            yield event


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
            for line in whole.split(b"\n"):
                if (event := _parse(line)) is not None:
                    yield event
        time.sleep(poll_s)


def verify_events(workspace: Workspace, head: str | None = None) -> str | None:
    """None when every line and link holds and every head that was sent is there, else what is wrong, and where.

    Args:
        head: a hash from a message, or its beginning, that must be in the log as well.
    """
    name = workspace.events.name
    lines = workspace.events.read_bytes().split(b"\n")[:-1] if workspace.events.exists() else []
    link, number = GENESIS, 0
    seen: set[str] = set()
    for at, line in enumerate(lines, 1):
        event = _parse(line)
        if event is None:
            return f"line {at} of {name} is damaged"
        if event["prev"] != link:
            before = f"line {at - 1}" if at > 1 else "the beginning"
            return f"line {at} of {name} does not follow {before}: {_why(event, number, seen)}"
        if event["hash"] != event_hash(event):
            return f"line {at} of {name} was changed after it was written"
        link, number = event["hash"], event["id"]
        seen.add(link)
    for sent in sent_heads(workspace):
        if sent["hash"] not in seen:
            what = f"event {sent.get('id')} of {str(sent.get('at'))[:16]} (hash {sent['hash'][:8]})"
            return f"{name} was cut off after line {len(lines)}: {what}, whose hash was sent, is not in it"
    if head and not any(known.startswith(head) for known in seen):
        return f"{name} was cut off or made anew: the head {head[:8]} is in none of its {len(lines)} lines"
    return None


def _parse(line: bytes) -> dict[str, Any] | None:
    """The event in a line, or None where it is not one of ours."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(event, dict) and event.keys() >= _FIELDS and isinstance(event["detail"], dict)
    return event if whole and isinstance(event["id"], int) else None


def _last_line(path: Path) -> tuple[int, str]:
    """The last event's id, and the link to the last line."""
    link = None
    for line in _lines_backward(path):
        event = _parse(line)
        link = link or (str(event["hash"]) if event else hashlib.sha256(line).hexdigest())
        if event is not None:
            return event["id"], link
    return 0, link or GENESIS


def _tail_lines(path: Path, count: int) -> list[bytes]:
    return list(itertools.islice(_lines_backward(path), count))[::-1]


def log_bytes(workspace: Workspace) -> int:
    """The size of the log now, for `since` of a later search."""
    return workspace.events.stat().st_size if workspace.events.exists() else 0


def _lines_backward(path: Path, since: int = 0) -> Iterator[bytes]:
    """The file's whole lines that are not empty, the last one first; a line may be of any length.

    Args:
        since: nothing before this byte is read; what is left of a line that begins before it counts as one.
    """
    with path.open("rb") as stream:
        start = stream.seek(0, os.SEEK_END)
        parts: list[bytes] = []  # of the line whose beginning is not read yet, the last part first
        ended = False  # whether the newline that ends it was seen: what follows the last one is torn
        since = max(0, since) if since <= start else 0  # a shorter log than it was is another one
        while start > since:
            step = min(_TAIL, start - since)
            start -= step
            stream.seek(start)
            pieces = stream.read(step).split(b"\n")
            for piece in reversed(pieces[1:]):
                line = b"".join([piece, *reversed(parts)])
                parts = []
                if ended and line:
                    yield line
                ended = True
            parts.append(pieces[0])
        line = b"".join(reversed(parts))
        if ended and line:
            yield line


def _why(event: dict[str, Any], number: int, seen: set[str]) -> str:
    if event["hash"] in seen:
        return f"it is there twice (event {event['id']})"
    if event["id"] <= number:
        return f"it is out of order (event {event['id']} after event {number})"
    if event["id"] > number + 1:
        missing = event["id"] - number - 1
        return f"{missing} {'event is' if missing == 1 else 'events are'} missing between them"
    return "one of them was changed"


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
