"""The private channel to a slot's server: HTTP over a Unix socket that only the owner can open.

The server (engine.serving) answers on it: `GET /stats`, `POST /prepare` {release} and `POST /follow`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from engine.errors import Failed
from engine.store.workspace import Workspace

NOT_LIVE = {"x-understudy-purpose": "test"}  # of requests that are no client's: golden answers, comparisons
_LONGEST = 100  # sun_path holds 104 bytes on macOS, 108 on Linux


def socket_path(workspace: Workspace, slot: str) -> Path:
    """Where the slot's private socket lies: in the workspace, or under a hash where that path is too long."""
    path = workspace.slots / f"{slot}.sock"
    if len(os.fsencode(path.absolute())) <= _LONGEST:
        return path
    name = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"understudy-{os.getuid()}" / f"{name}.sock"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("slot", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def slot_stats(workspace: Workspace, slot: str, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """What the slot's running server says of itself, or None when none answers.

    Fields: `pid, host, port, state` (`live`, `loading`, `empty`), `release, since, requests, errors, p50_ms,
    p99_ms, swaps, worker_pid, started_at`, and `problem`: why the pointer's release is not served, or None.
    """
    try:
        return _call(workspace, slot, "GET", "/stats", None, timeout_s)
    except (OSError, http.client.HTTPException):
        return None


def prepare(workspace: Workspace, slot: str, release: str, timeout_s: float = 120.0) -> bool:
    """Have the slot's server load and warm `release` beside the one it serves; False when no server runs.

    Raises:
        Failed: the release does not load; the server goes on with what it has.
    """
    return _command(workspace, slot, "/prepare", {"release": release}, timeout_s)


def follow(workspace: Workspace, slot: str, timeout_s: float = 120.0) -> bool:
    """Have the slot's server switch to what its pointer says, now; False when no server runs.

    Raises:
        Failed: the release does not load; the server goes on with what it has.
    """
    return _command(workspace, slot, "/follow", {}, timeout_s)


def _command(workspace: Workspace, slot: str, path: str, body: dict[str, Any], timeout_s: float) -> bool:
    if slot_stats(workspace, slot) is None:
        return False
    try:
        answer = _call(workspace, slot, "POST", path, body, timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise Failed(f"the {slot} server did not answer ({error})", "see its log, then try again") from None
    if "error" in answer:
        raise Failed(answer["error"]["message"], answer["error"].get("hint", ""), kind=answer["error"]["kind"])
    return True


def _call(
    workspace: Workspace, slot: str, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
) -> dict[str, Any]:
    connection = _UnixConnection(socket_path(workspace, slot), timeout_s)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        return dict(json.loads(connection.getresponse().read()))
    except json.JSONDecodeError as error:
        raise http.client.HTTPException(f"answered no JSON ({error})") from None
    finally:
        connection.close()
