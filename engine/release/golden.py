"""After a swap: whether clients get right answers, asked over the slot's own HTTP port as a client would.

Asked are its readiness and some fixed images. Each answer must be of the new release, whole and finite, and the
one that the release gave when it was admitted, which its manifest keeps. A release of before that is compared
with the other slot where that serves the same one, as after a promotion.
"""

from __future__ import annotations

import http.client
import json
import math
import struct
import time
import zlib
from collections.abc import Sequence
from typing import Any

from engine.errors import Failed
from engine.release.bundle import read_release, release_path
from engine.release.control import slot_stats
from engine.store.workspace import SLOTS, TITLES, Workspace

_SIDE = 64
_PATIENCE_S = 5.0  # a full queue answers 503; the clients' load is not the release's fault
_TIMEOUT_S = 10.0
_ALIKE = 1e-3  # of a probability: engines of one host add up in another order at most
_KEPT_ALIKE = 1e-2  # of a probability: another host's engine, or one of half precision
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def check_live(workspace: Workspace, slot: str, release: str) -> bool:
    """Ask the slot's server as a client would; False when no server runs.

    Raises:
        Failed: it is not ready, or answers wrongly or not at all (kind `unhealthy`).
    """
    stats = slot_stats(workspace, slot)
    if stats is None:
        return False
    kept = read_release(release_path(workspace, release)).manifest.golden
    other = slot_stats(workspace, next(name for name in SLOTS if name != slot)) if kept is None else None
    twin = other if other is not None and other["state"] == "live" and other["release"] == release else None
    try:
        _ask(stats, "GET", "/health/ready", None)
        for place, picture in enumerate(pictures()):
            answer = _answer(stats, picture, release)
            if kept is not None and not _alike(_scores(answer), kept[place], _KEPT_ALIKE):
                raise _Wrong(f"image {place + 1} is no longer answered as when the release was admitted")
            if twin is not None and not _alike(
                _scores(answer), _scores(expected := _answer(twin, picture, release)), _ALIKE
            ):
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


def _scores(answer: dict[str, Any]) -> dict[int, float]:
    return {int(entry["index"]): float(entry["confidence"]) for entry in answer["top_k"]}


def _alike(one: dict[int, float], other: dict[int, float], allowed: float) -> bool:
    """Whether the best classes of two answers agree. Near a tie the order may differ, so a class that only one of
    them lists must not be surer than the least of the other's."""
    least = max(min(one.values()), min(other.values()))
    return all(
        abs(one[index] - other[index]) <= allowed
        if index in one and index in other
        else one.get(index, other.get(index, 0.0)) <= least + allowed
        for index in one.keys() | other.keys()
    )


def best(probabilities: Sequence[float], count: int = 5) -> dict[int, float]:
    """The surest classes of an answer, index -> confidence to four digits, as a manifest keeps them."""
    surest = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])[:count]
    return {index: round(float(probabilities[index]), 4) for index in surest}


def _said(answer: dict[str, Any]) -> str:
    return f"{answer['label']} {answer['confidence']:.4g}"


def pictures() -> list[bytes]:
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
