"""The workspace's files as the protocol's snapshots. Every function reads what is there now, and writes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from engine import __version__
from engine.compare.gate import gate as judge
from engine.compare.labels import shadow_state
from engine.compare.records import comparison_path, summaries
from engine.config import Settings
from engine.errors import Failed, UnderstudyError
from engine.protocol import (
    NEWEST,
    Ab,
    Backup,
    Bake,
    Comparison,
    Differing,
    Gate,
    Health,
    Held,
    LastSync,
    Lock,
    Shadow,
    Slot,
    Slots,
    SlotState,
    from_json,
)
from engine.release.backups import find_backups
from engine.release.bake import standing as bake_standing
from engine.release.hold import held as read_hold
from engine.release.slots import Pointer, read_pointer
from engine.store.clock import now, parse
from engine.store.files import read_json
from engine.store.workspace import SLOTS, Workspace
from engine.watch.lenient import lenient

T = TypeVar("T")
Stats = Mapping[str, dict[str, Any] | None]
_STATES: dict[str, SlotState] = {"live": "live", "loading": "loading", "empty": "empty"}


def read_slots(workspace: Workspace, settings: Settings, stats: Stats, *, backups: bool = True) -> Slots:
    """Both slots from their pointers and what their servers said (`slot_stats`, None where none answers)."""
    last = last_comparison(workspace)
    found = list_backups(workspace, settings) if backups else []
    asis, tobe = (read_slot(workspace, settings, slot, stats.get(slot), last) for slot in SLOTS)
    return Slots(
        asis=asis,
        tobe=tobe,
        backups=found[:NEWEST],
        total=len(found),
        bake=_read_bake(workspace),
        shadow=_read_shadow(workspace, settings, asis, tobe),
    )


def _read_shadow(workspace: Workspace, settings: Settings, asis: Slot, tobe: Slot) -> Shadow | None:
    try:
        found = shadow_state(workspace, settings.shadow.share, asis.release, tobe.release)
    except Failed:
        return None  # damaged labels: the gate says so
    return Shadow(**found) if found else None


def _read_bake(workspace: Workspace) -> Bake | None:
    found = bake_standing(workspace)
    return (
        Bake(**{key: value for key, value in found.items() if key not in ("backup", "by_itself")})
        if found
        else None
    )


def read_slot(
    workspace: Workspace,
    settings: Settings,
    slot: str,
    stats: dict[str, Any] | None,
    last: dict[str, Any] | None = None,
) -> Slot:
    """One slot. `down`: it should serve a release and no server answers; `empty`: there is none to serve."""
    pointer, problem = None, None
    try:
        pointer = read_pointer(workspace, slot)
    except Failed as error:
        problem = str(error)
    known: dict[str, Any] = {"port": settings.port(slot), "state": "down" if pointer or problem else "empty"}
    if pointer is not None:
        known |= _pointed(pointer)
        side = (last or {}).get(slot) or {}
        known["checked_accuracy"] = side.get("accuracy") if side.get("release") == pointer.release else None
    if stats is not None:
        known |= _served(stats)
        known["state"] = _STATES.get(str(stats.get("state")), "down")
        if stats.get("release") != known.get("release"):
            known["serving"] = stats.get("release")
    known["problem"] = problem or (stats or {}).get("problem")
    if known["problem"] is None and known["state"] == "down":
        known["problem"] = "no server answers"
    return from_json(Slot, known, slot)


def list_backups(workspace: Workspace, settings: Settings) -> list[Backup]:
    """AS-IS's backups, newest first, by name alone: `verified` is None."""
    return [
        from_json(Backup, {**backup.as_json(), "verified": None}, "backup")
        for backup in find_backups(workspace, settings.port("asis"), verify=False)
    ]


def last_comparison(workspace: Workspace) -> dict[str, Any] | None:
    """The last comparison without its rows, or None."""
    return _state(workspace, "last_ab.json")


def read_gate(workspace: Workspace, settings: Settings) -> Gate:
    """What `promote` would be told now. A damaged file closes it, with the reason."""
    try:
        verdict = judge(workspace, settings)
    except UnderstudyError as error:
        return Gate(open=False, reason=str(error))
    evidence = verdict["evidence"]
    missing = evidence.get("images_missing")
    return Gate(open=verdict["open"], reason=verdict["reason"], images_missing=missing, evidence=evidence)


def read_ab(workspace: Workspace, settings: Settings, gate: Gate | None = None) -> Ab:
    """The last comparison, or the one under way, with the gate."""
    gate = gate or read_gate(workspace, settings)
    running = _state(workspace, "ab_progress.json")
    if running is not None and not _alive(running.get("pid")):
        running = None
    last = running or last_comparison(workspace)
    comparison = None
    if last is not None:
        pointers = {slot: _pointer(workspace, slot) for slot in SLOTS}
        comparison = _comparison(last, pointers, settings, running is not None)
        if comparison.current and gate.evidence.get("e_needed"):  # earlier looks at the two may ask for more
            comparison = replace(comparison, e_needed=float(gate.evidence["e_needed"]))
        if running is None:
            comparison = _with_differing(workspace, comparison)
    try:
        total = len(summaries(workspace))
    except UnderstudyError:
        total = 0
    return Ab(comparison=comparison, gate=gate, total=total)


def read_last_sync(workspace: Workspace) -> LastSync | None:
    """The last look at the source, or None before the first."""
    last = _state(workspace, "last_sync.json")
    if last is None or not isinstance(last.get("at"), str):
        return None
    candidate, error = last.get("candidate"), last.get("error")
    return lenient(
        LastSync,
        {
            **last,
            "candidate": candidate.get("path") if isinstance(candidate, dict) else None,
            "error": error.get("message") if isinstance(error, dict) else error,
        },
        {"at": last["at"]},
    )


def missed_looks(last: LastSync | None, settings: Settings) -> int:
    """How many looks were due since the last one and did not come; 0 where none was ever made.

    A quarter of the interval is left for the look itself and for cron's grain.
    """
    if last is None:
        return 0
    period_s = settings.source.poll_minutes * 60
    return max(0, int(((now() - parse(last.at)).total_seconds() - period_s / 4) / period_s))


def read_held(workspace: Workspace) -> Held | None:
    """Since when and by whom TO-BE is held, and the checkpoint that waits; None when it is not."""
    try:
        mark = read_hold(workspace)
    except Failed as error:
        return Held(reason=str(error))
    if mark is None:
        return None
    last = read_last_sync(workspace)
    newer = last.candidate if last and last.changed and not last.deployed else None
    return Held(since=mark.get("at"), by=mark.get("actor"), reason=mark.get("reason"), newer=newer)


def read_locks(workspace: Workspace) -> list[Lock]:
    """Who holds which lock, as the holders wrote it.

    Asking the kernel would take a free lock for a moment, and a command that comes then would find it busy.
    """
    found = []
    for path in sorted((workspace.root / "locks").glob("*.lock")):
        try:
            said = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # empty: nobody holds it
        lasting = path.stem == "events" or path.stem.startswith("serve-")  # a moment's, or a server's for its life
        if isinstance(said, dict) and not lasting and _alive(said.get("pid")):
            found.append(lenient(Lock, {**said, "name": path.stem}, {"name": path.stem}))
    return found


def read_unfinished(workspace: Workspace, locks: list[Lock]) -> str | None:
    """The verb of a change of a slot that a crash cut short, or None."""
    if any(lock.name == "slots" for lock in locks):
        return None
    try:
        intent = read_json(workspace.journal)
    except (Failed, OSError):
        return "damaged journal"
    return str(intent.get("verb")) if isinstance(intent, dict) else None


def read_health(workspace: Workspace, settings: Settings, gate: Gate) -> Health:
    """Everything of `health` that stands in files; sources and advice are added by who watches."""
    locks, last = read_locks(workspace), read_last_sync(workspace)
    return Health(
        gate=gate,
        last_sync=last,
        missed_looks=missed_looks(last, settings),
        poll_s=settings.source.poll_minutes * 60,
        held=read_held(workspace),
        locks=locks,
        unfinished=read_unfinished(workspace, locks),
        workspace=str(workspace.root),
        version=__version__,
    )


def _pointed(pointer: Pointer) -> dict[str, Any]:
    origin = pointer.checkpoint
    return {
        "release": pointer.release,
        "sha256": origin.sha256,
        "md5": origin.md5,
        "checkpoint": origin.name,
        "cycle": origin.cycle,
        "epoch": origin.epoch,
        "accuracy": origin.accuracy,
        "architecture": pointer.architecture,
        "precision": pointer.precision,
        "since": pointer.since,
    }


def _served(stats: dict[str, Any]) -> dict[str, Any]:
    names = ("requests", "errors", "p50_ms", "p99_ms", "swaps", "pid", "started_at")
    return {name: stats.get(name) for name in names} | ({"port": stats["port"]} if stats.get("port") else {})


def _pointer(workspace: Workspace, slot: str) -> Pointer | None:
    try:
        return read_pointer(workspace, slot)
    except Failed:
        return None


def _comparison(
    record: dict[str, Any], pointers: Mapping[str, Pointer | None], settings: Settings, running: bool
) -> Comparison:
    current = all(
        (pointer := pointers[slot]) is not None and pointer.release == (record.get(slot) or {}).get("release")
        for slot in SLOTS
    )
    known = {
        **record,
        "running": running,
        "finished_at": None if running else record.get("at"),
        "p_exact": record.get("exact_p"),
        "e_needed": 1 / settings.gate.alpha,
        "current": current,
    }
    return lenient(Comparison, known, {"id": int(record.get("id") or 0), "n": int(record.get("n") or 0)})


def _with_differing(workspace: Workspace, comparison: Comparison) -> Comparison:
    try:
        record = read_json(comparison_path(workspace, comparison.id)) or {}
        rows = [row for row in record.get("rows", []) if row[2] != row[3]]
        shown = [Differing(sha256=row[0], label=row[1], asis=row[2], tobe=row[3]) for row in rows[-NEWEST:]]
    except (Failed, OSError, AttributeError, LookupError, TypeError):
        return comparison
    return replace(comparison, differing=shown, differing_total=len(rows))


def _state(workspace: Workspace, name: str) -> dict[str, Any] | None:
    try:
        found = read_json(workspace.state / name)
    except (Failed, OSError):
        return None
    return found if isinstance(found, dict) else None


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def signature(paths: list[Path]) -> tuple[tuple[int, int, int] | None, ...]:
    """Size, time and inode of each file: equal as long as nothing was written."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            facts = path.stat()
            found.append((facts.st_size, facts.st_mtime_ns, facts.st_ino))
        except OSError:
            found.append(None)
    return tuple(found)
