"""The watch over a promoted release: its live answers against those of the release it replaced.

Nothing starts a bake: AS-IS's pointer and the `promoted` event of its transaction say that one is due, so a
promotion that dies half way, a restart of the server or a reboot cannot lose it. `state/bake.json` holds how
far it came. Each look adds what the server counted; the counts of a server that has ended are kept.

Looking often raises false alarms. Looks come at 1.5 times the requests of the one before, and the k-th gets
the share 1/(k(k+1)) of `bake.alpha`; those shares sum to 1, so by the union bound an unchanged model raises
an alarm in at most `bake.alpha` of the bakes however many looks there are (alpha spending: Lan and DeMets
1983, Biometrika 70(3)). Each look shares its part over the three tests. A significant but small difference is
no alarm: each has a limit on its size too. The p99 has no test here, only a limit that two looks in a row pass.

A bake ends as `passed`, with an alarm, because AS-IS went back, or, where fewer than `bake.min_requests` answers
came, as `unjudged`: nothing is known then, so nothing is claimed and nothing goes back by itself. A later look takes
the answers that came since, and judges by them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import Busy, Failed, Refused
from engine.release import drift
from engine.release.bundle import read_release, release_path
from engine.release.control import slot_stats
from engine.release.journal import pending
from engine.release.promote import rollback
from engine.release.slots import Pointer, read_pointer
from engine.store.clock import now, parse, timestamp
from engine.store.events import append_event, read_events
from engine.store.files import read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace

_GROWTH = 1.5
_TESTS = 3
_NOTICEABLE_MS = 10.0  # a smaller growth of the p99 is the host's, not the model's
_NEWEST = 500  # the promotion's event is among so many
_NOTHING: dict[str, Any] = {"requests": 0, "errors": 0, "p99_ms": None, "confidence": [], "classes": {}}
Tell = Callable[[str, str, str], None]
JUDGE_LATER = "have clients ask it and judge it then: python -m engine bake"


def standing(workspace: Workspace) -> dict[str, Any] | None:
    """The newest bake as last looked at, or None: `{release, replaced, since, until, state, reason, requests,
    errors, backup, by_itself}`; `state` is `watching`, `passed`, `unjudged`, `alarm` or `rolled_back`, the last
    `by_itself` or by a person."""
    found = _read(workspace)
    if found is None:
        return None
    fields = ("release", "replaced", "since", "until", "state", "reason", "backup")
    total = _added(found["kept"], found["present"])
    counts = {"requests": total["requests"], "errors": total["errors"]}
    return {**{key: found[key] for key in fields}, **counts, "by_itself": bool(found.get("by_itself"))}


def due(workspace: Workspace, settings: Settings) -> bool:
    """Whether there is something to watch: AS-IS holds what was promoted less than `bake.minutes` ago."""
    try:
        pointer = read_pointer(workspace, "asis")
        found = _read(workspace)
        if pointer is None or settings.bake.minutes == 0:
            return False
        if found is not None and found["id"] == pointer.transaction:
            return _unfinished(found, settings)
        if now() >= parse(pointer.since) + timedelta(minutes=settings.bake.minutes):
            return False
        begun = pending(workspace)
    except Failed:
        return False
    if begun is not None and begun.transaction == pointer.transaction:
        return begun.event_kind == "promoted"
    return _promotion(workspace, pointer) is not None


def look(
    workspace: Workspace, settings: Settings, tell: Tell = lambda subject, text, fix: None
) -> dict[str, Any] | None:
    """Look once at the bake under way, or at one that had too few answers, and act on what is seen; returns
    `standing`, or None without one.

    Args:
        tell: takes subject, text and fix of an alarm or of too few answers, before it is written down as told: at
            least once.
    """
    with hold(workspace.lock("bake"), "bake", wait=True):
        found, pointer = _begun(workspace, settings), read_pointer(workspace, "asis")
        if found is not None and found["state"] == "unjudged" and pointer and pointer.transaction == found["id"]:
            until = parse(found["since"]) + timedelta(minutes=settings.bake.minutes)
            found |= {"state": "watching", "reason": None, "until": timestamp(until)}
        if found is None or not _unfinished(found, settings):
            return standing(workspace)
        if pointer is None or pointer.transaction != found["id"]:
            return _end(workspace, found, "rolled_back", "AS-IS holds another release by now")
        if found["state"] == "watching":
            _count(workspace, found)
            _judge(workspace, settings, found, tell)
        if found["state"] == "alarm" and settings.bake.rollback:
            _roll_back(workspace, settings, found)
        write_json(_path(workspace), found)
        return standing(workspace)


def needed(workspace: Workspace) -> set[str]:
    """Names of backups and ids of releases that a bake under way may go back to."""
    found = _read(workspace)
    if found is None or found["state"] not in ("watching", "unjudged", "alarm"):
        return set()
    return {name for name in (found["release"], found["replaced"], found["backup"]) if name}


def _begun(workspace: Workspace, settings: Settings) -> dict[str, Any] | None:
    """The bake of what AS-IS holds, begun now where it was due; else the one before."""
    found, pointer = _read(workspace), read_pointer(workspace, "asis")
    if pointer is None or (found is not None and found["id"] == pointer.transaction):
        return found
    event = _promotion(workspace, pointer)
    until = parse(pointer.since) + timedelta(minutes=settings.bake.minutes)
    if event is None or now() >= until:
        return found
    detail = event["detail"]
    found = {
        "id": pointer.transaction,
        "release": pointer.release,
        "replaced": detail["from"],
        "backup": detail["backup_made"],
        "since": pointer.since,
        "until": timestamp(until),
        "state": "watching",
        "reason": None,
        "before": None,
        "kept": _NOTHING,
        "present": _NOTHING,
        "server": None,
        "looks": 0,
        "next_at": settings.bake.min_requests,
        "slow": 0,
        "same_classes": _classes(workspace, pointer.release) == _classes(workspace, detail["from"]),
    }
    write_json(_path(workspace), found)
    return found


def _count(workspace: Workspace, found: dict[str, Any]) -> None:
    """Take over what AS-IS's server counted since the last look."""
    stats = slot_stats(workspace, "asis")
    answers = (stats or {}).get("answers", {})
    if stats is None or found["release"] not in answers:
        return
    if stats["started_at"] != found["server"]:
        found["kept"] = _added(found["kept"], found["present"])
        found["server"] = stats["started_at"]
    found["present"] = _counts(answers[found["release"]])
    if found["before"] is None and found["replaced"] in answers:
        found["before"] = _counts(answers[found["replaced"]])


def _judge(workspace: Workspace, settings: Settings, found: dict[str, Any], tell: Tell) -> None:
    total = _added(found["kept"], found["present"])
    over = now() >= parse(found["until"])
    enough = total["requests"] >= settings.bake.min_requests
    if not enough:
        if over:
            _leave_unjudged(workspace, settings, found, total["requests"], tell)
        return
    if total["requests"] < found["next_at"] and not over:
        return
    found["looks"] += 1
    found["next_at"] = math.ceil(_GROWTH * total["requests"])
    reasons = _reasons(settings, found, total)
    if reasons:
        _alarm(workspace, settings, found, "; ".join(reasons), tell)
    elif over:
        found |= {"state": "passed", "reason": f"{total['requests']} answers, none of its figures out of bounds"}
        _record(workspace, found, "baked", {"outcome": "passed"})


def _reasons(settings: Settings, found: dict[str, Any], total: dict[str, Any]) -> list[str]:
    """What is out of bounds at this look, in words."""
    limits, before = settings.bake, found["before"]
    alpha = limits.alpha / (found["looks"] * (found["looks"] + 1)) / _TESTS
    rate = total["errors"] / total["requests"]
    if before is None or before["requests"] < limits.min_requests:
        found["slow"] = 0
        if drift.errors_above(total["errors"], total["requests"], limits.max_error_rate_increase) < alpha:
            return [f"{rate:.2%} of its answers are errors"]
        return []
    reasons = []
    rate_before = before["errors"] / before["requests"]
    p = drift.more_errors(total["errors"], total["requests"], before["errors"], before["requests"])
    if p < alpha and rate - rate_before > limits.max_error_rate_increase:
        reasons.append(f"{rate:.2%} of its answers are errors, {rate_before:.2%} before")
    if total["p99_ms"] and before["p99_ms"]:
        slow = total["p99_ms"] > max(limits.max_p99_ratio * before["p99_ms"], before["p99_ms"] + _NOTICEABLE_MS)
        found["slow"] = found["slow"] + 1 if slow else 0
        if found["slow"] >= 2:
            reasons.append(f"p99 is {total['p99_ms']:.0f} ms, {before['p99_ms']:.0f} ms before")
    distance, p = drift.confidence_shift(total["confidence"], before["confidence"])
    if p < alpha and distance > limits.max_confidence_shift:
        reasons.append(f"its confidence is distributed otherwise (distance {distance:.2f})")
    if found["same_classes"]:
        distance, p = drift.class_shift(total["classes"], before["classes"])
        if p < alpha and distance > limits.max_class_shift:
            reasons.append(f"{distance:.0%} of its answers went to other classes")
    return reasons


def _leave_unjudged(
    workspace: Workspace, settings: Settings, found: dict[str, Any], requests: int, tell: Tell
) -> None:
    least = settings.bake.min_requests
    reason = f"not enough answers: {requests} of {least} (bake.min_requests)"
    found |= {"state": "unjudged", "reason": reason}
    _record(workspace, found, "baked", {"outcome": "unjudged", "requests": requests, "needed": least})
    if not found.get("told_unjudged"):
        tell(
            f"nothing is known of how AS-IS does since {found['release'][:8]} was promoted",
            reason,
            f"{JUDGE_LATER}; or take it down: python -m engine rollback {found['backup']}",
        )
        found |= {"told_unjudged": True}
    write_json(_path(workspace), found)


def _record(workspace: Workspace, found: dict[str, Any], kind: str, detail: dict[str, Any]) -> None:
    """The bake's one event of this kind and outcome, whatever was killed meanwhile."""
    for event in read_events(workspace, _NEWEST):
        past = event["detail"]
        same = past.get("bake") == found["id"] and past.get("outcome") == detail.get("outcome")
        if event["kind"] == kind and same:
            return
    about = {key: found[key] for key in ("release", "replaced", "reason", "looks")}
    append_event(workspace, kind, "AS-IS", {**detail, "slot": "asis", "bake": found["id"], **about})


def _alarm(workspace: Workspace, settings: Settings, found: dict[str, Any], reason: str, tell: Tell) -> None:
    found |= {"state": "alarm", "reason": reason}
    _record(workspace, found, "alert", {"severity": "critical"})
    fix = f"take it down: python -m engine rollback {found['backup']}"
    if settings.bake.rollback:
        fix = f"it is rolled back by itself to {str(found['replaced'])[:8]}"
    tell(f"AS-IS does worse since {found['release'][:8]} was promoted", reason, fix)
    write_json(_path(workspace), found)


def _roll_back(workspace: Workspace, settings: Settings, found: dict[str, Any]) -> None:
    """Put the replaced release back; a slot that is being changed is tried again at the next look."""
    with contextlib.suppress(Busy):
        try:
            rollback(
                workspace, settings, found["backup"], expect=found["release"], reason=f"bake: {found['reason']}"
            )
        except Refused:
            found |= {"state": "rolled_back", "reason": "AS-IS holds another release by now"}
        except Failed as error:
            append_event(
                workspace, "alert", "AS-IS", {"severity": "critical", "slot": "asis", "reason": error.message}
            )
            found |= {
                "gave_up": True,
                "reason": f"{found['reason']}; it could not be rolled back: {error.message}",
            }
        else:
            found |= {"state": "rolled_back", "by_itself": True}


def _end(workspace: Workspace, found: dict[str, Any], state: str, reason: str) -> dict[str, Any] | None:
    write_json(_path(workspace), found | {"state": state, "reason": found["reason"] or reason})
    return standing(workspace)


def _unfinished(found: dict[str, Any], settings: Settings) -> bool:
    waits = found["state"] == "alarm" and settings.bake.rollback and not found.get("gave_up")
    return found["state"] == "watching" or waits


def _promotion(workspace: Workspace, pointer: Pointer) -> dict[str, Any] | None:
    """The event that put AS-IS's release there, when it was a promotion over another release."""
    for event in reversed(read_events(workspace, _NEWEST)):
        detail = event["detail"]
        if detail.get("transaction") == pointer.transaction:
            return event if event["kind"] == "promoted" and detail["from"] and detail["backup_made"] else None
    return None


def _classes(workspace: Workspace, release: str) -> list[str] | None:
    try:
        return read_release(release_path(workspace, release)).manifest.classes
    except Failed:
        return None


def _counts(answers: dict[str, Any]) -> dict[str, Any]:
    kept = {key: answers[key] for key in ("requests", "errors", "confidence", "classes")}
    return {**kept, "p99_ms": answers["latency_ms"]["p99"]}


def _added(kept: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    """The sums of both; the p99 is the present one's, that of an ended server says nothing of now."""
    bins = max(len(kept["confidence"]), len(present["confidence"]))
    padded = [[*counts["confidence"], *[0] * (bins - len(counts["confidence"]))] for counts in (kept, present)]
    names = {*kept["classes"], *present["classes"]}
    return {
        "requests": kept["requests"] + present["requests"],
        "errors": kept["errors"] + present["errors"],
        "p99_ms": present["p99_ms"],
        "confidence": [sum(pair) for pair in zip(*padded, strict=True)],
        "classes": {name: kept["classes"].get(name, 0) + present["classes"].get(name, 0) for name in names},
    }


def _read(workspace: Workspace) -> dict[str, Any] | None:
    try:
        found = read_json(_path(workspace))
    except Failed:  # what it watched is told by the pointer and the log: it begins again
        return None
    return dict(found) if isinstance(found, dict) else None


def _path(workspace: Workspace) -> Path:
    return workspace.state / "bake.json"
