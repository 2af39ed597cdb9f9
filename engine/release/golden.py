"""After a swap: whether clients get right answers, asked over the slot's own HTTP port as a client would.

Asked are its readiness and some fixed images. Each answer must be of the new release, whole and finite; where
the other slot serves the same release, as after a promotion, both must answer alike.
"""

from __future__ import annotations

import http.client
import json
import math
import struct
import time
import zlib
from typing import Any

from engine.errors import Failed
from engine.release.control import slot_stats
from engine.store.workspace import SLOTS, TITLES, Workspace

_SIDE = 64
_PATIENCE_S = 5.0  # a full queue answers 503; the clients' load is not the release's fault
_TIMEOUT_S = 10.0
_ALIKE = 1e-3  # of a probability: engines of one host add up in another order at most
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def check_live(workspace: Workspace, slot: str, release: str) -> bool:
    """Ask the slot's server as a client would; False when no server runs.

    Raises:
        Failed: it is not ready, or answers wrongly or not at all (kind `unhealthy`).
    """
    stats = slot_stats(workspace, slot)
    if stats is None:
        return False
    other = slot_stats(workspace, next(name for name in SLOTS if name != slot))
    twin = other if other is not None and other["state"] == "live" and other["release"] == release else None
    try:
        _ask(stats, "GET", "/health/ready", None)
        for picture in _pictures():
            answer = _answer(stats, picture, release)
            if twin is not None and not _alike(answer, expected := _answer(twin, picture, release)):
                raise _Wrong(f"it answers {_said(answer)} where the other slot answers {_said(expected)}")
    except (_Wrong, OSError, http.client.HTTPException) as error:
        if slot_stats(workspace, slot) is None:  # it died meanwhile: what comes up follows the pointer
            return False
        raise Failed(
            f"{TITLES[slot]} does not answer rightly with {release[:8]} ({error})",
            "see the server's log, then try again",
            kind="unhealthy",
        ) from None
    return True


class _Wrong(Exception):
    """What is wrong with an answer."""


def _answer(stats: dict[str, Any], picture: bytes, release: str) -> dict[str, Any]:
    content = _ask(stats, "POST", "/predict", picture)
    try:
        answer = dict(json.loads(content))
        confidences = [float(entry["confidence"]) for entry in answer["top_k"]]
        named, label = answer["release"], answer["label"]
    except (ValueError, KeyError, TypeError):
        raise _Wrong(f"its answer cannot be read: {content[:120]!r}") from None
    if named != release:
        raise _Wrong(f"release {str(named)[:8]} answers")
    if (
        not label
        or not confidences
        or not all(math.isfinite(value) and 0 <= value <= 1.001 for value in confidences)
    ):
        raise _Wrong(f"its answer is no distribution: {content[:120]!r}")
    return answer


def _ask(stats: dict[str, Any], method: str, path: str, body: bytes | None) -> bytes:
    """The body of a good answer; a busy or unready server is asked again for a while."""
    deadline = time.monotonic() + _PATIENCE_S
    host = _EVERYWHERE.get(stats["host"], stats["host"])
    while True:
        connection = http.client.HTTPConnection(host, stats["port"], timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body)
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status == 200:
            return content
        if reply.status != 503 or time.monotonic() > deadline:
            raise _Wrong(f"{path} says {reply.status}: {content[:120].decode(errors='replace')}")
        time.sleep(0.05)


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers agree; near a tie the order may differ."""
    scores = [{entry["index"]: entry["confidence"] for entry in answer["top_k"]} for answer in (one, other)]
    return all(abs(value - scores[1][index]) <= _ALIKE for index, value in scores[0].items() if index in scores[1])


def _said(answer: dict[str, Any]) -> str:
    return f"{answer['label']} {answer['confidence']:.4g}"


def _pictures() -> list[bytes]:
    """Black, a gradient and blocks, as PNG; made by hand, for the quick verbs import no image library."""
    grid = range(_SIDE)
    return [
        _png(b"".join(b"\0" + bytes(3 * _SIDE) for _ in grid)),
        _png(b"".join(b"\0" + b"".join(bytes((4 * x, 4 * y, 2 * (x + y))) for x in grid) for y in grid)),
        _png(b"".join(b"\0" + b"".join(bytes(((x ^ y) * 4, x & 32 and 255, y & 16 and 255)) for x in grid) for y in grid)),
    ]  # fmt: skip


def _png(rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
