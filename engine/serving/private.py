"""The server side of a slot's private channel (engine.release.control): stats, prepare, follow."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import Busy, Failed, UnderstudyError
from engine.serving.bodies import Bodies
from engine.serving.replies import HttpError, Receive, Scope, Send, reply, reply_error
from engine.serving.slot import Slot

_MOST_BYTES = 64 * 1024


class Private:
    """ASGI application for the owner alone; `stats` gives what `slot_stats` returns."""

    def __init__(self, slot: Slot, stats: Callable[[], dict[str, Any]]) -> None:
        self._slot, self._stats = slot, stats
        self._bodies = Bodies(_MOST_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = (scope["method"], scope["path"])
        try:
            if asked == ("POST", "/prepare"):
                await self._slot.prepare(await self._release(receive))
            elif asked == ("POST", "/follow"):
                await self._slot.follow()
            elif asked != ("GET", "/stats"):
                raise HttpError(404, "unknown_path", f"there is no {asked[0]} {asked[1]} here")
            await reply(send, 200, json.dumps(self._stats()).encode())
        except HttpError as error:
            await reply_error(send, scope["path"], error)
        except UnderstudyError as error:
            await reply(send, 409, json.dumps(error.as_json()).encode())

    async def _release(self, receive: Receive) -> str:
        body = await self._bodies.read(receive)
        self._bodies.release(len(body))
        try:
            release = json.loads(body)["release"]
        except (ValueError, KeyError, TypeError):
            release = None
        if not isinstance(release, str) or len(release) != 64 or not set(release) <= set("0123456789abcdef"):
            raise HttpError(422, "bad_release", 'the body must be {"release": ID}, an id of 64 hex digits')
        return release


def private_socket(path: Path) -> socket.socket:
    """A bound Unix socket that its owner alone can open. Call it with the slot's `serve` lock held.

    Raises:
        Busy: a server answers there already.
        Failed: the folder is not ours.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Failed(f"{path.parent} is not a folder of this user", "move it away")
    path.parent.chmod(0o700)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(os.fspath(path)) == 0:
                    raise Busy(f"a server of this slot answers on {path}", "stop it first")
            path.unlink()
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(before)
        path.chmod(0o600)
        return listener
    except BaseException:
        listener.close()
        raise
