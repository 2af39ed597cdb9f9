"""After a swap: whether clients get right answers, asked over the slot's own HTTP port as a client would.

Asked are its readiness and some fixed requests: pictures, or what the manifest of another task keeps. Each answer must be of the new release, whole and finite, and the
one that the release gave when it was admitted, which its manifest keeps. A release of before that is compared
with the other slot where that serves the same one, as after a promotion.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import time
from typing import Any

from engine.errors import Failed
from engine.release.bundle import read_release, release_path
from engine.release.control import NOT_LIVE, slot_stats
from engine.store.workspace import SLOTS, TITLES, Workspace
from engine.tasks.images.pictures import pictures

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
    manifest = read_release(release_path(workspace, release)).manifest
    kept = manifest.golden
    bodies = pictures() if manifest.probes is None else [base64.b64decode(body) for body in manifest.probes]
    other = slot_stats(workspace, next(name for name in SLOTS if name != slot)) if kept is None else None
    twin = other if other is not None and other["state"] == "live" and other["release"] == release else None
    try:
        _ask(stats, "GET", "/health/ready", None)
        for place, body in enumerate(bodies):
            answer = _answer(stats, body, release)
            if kept is not None and not _alike(scores(answer), kept[place], _KEPT_ALIKE):
                raise _Wrong(f"request {place + 1} is no longer answered as when the release was admitted")
            if twin is not None and not _alike(
                scores(answer), scores(expected := _answer(twin, body, release)), _ALIKE
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


def _answer(stats: dict[str, Any], body: bytes, release: str) -> dict[str, Any]:
    content = _ask(stats, "POST", "/predict", body)
    try:
        answer = dict(json.loads(content))
        confidences = list(scores(answer).values())
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
            connection.request(method, path, body, dict(NOT_LIVE))
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        if reply.status == 200:
            return content
        if reply.status != 503 or time.monotonic() > deadline:
            raise _Wrong(f"{path} says {reply.status}: {content[:120].decode(errors='replace')}")
        time.sleep(0.05)


def scores(answer: dict[str, Any]) -> dict[int, float]:
    """The surest classes of an answer to `/predict`, index -> confidence to four digits, as a manifest keeps them."""
    entries = answer.get("top_k") or [answer]
    return {int(entry["index"]): round(float(entry["confidence"]), 4) for entry in entries}


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


def _said(answer: dict[str, Any]) -> str:
    return f"{answer['label']} {answer['confidence']:.4g}"
