"""The one transaction that changes a slot, under the lock `slots`, written down before it is done.

    intent → verified backup → the server loads and warms the release → pointer → the server follows
    → its answers over HTTP are right → what the change must leave behind (backup index, taken-down mark)
    → one event → journal removed

The pointer is the point of no return for a crash: before it the next command undoes what was begun
(the backup made is removed), after it the next command finishes (the event is written if the log does
not have this transaction yet). A failure that is not a crash is undone on the spot.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import Busy, Failed
from engine.release import control
from engine.release.backups import free_name, remember, write_backup
from engine.release.bundle import Release, read_release, release_path
from engine.release.golden import check_live
from engine.release.slots import Pointer, pointer_path, write_pointer
from engine.store.clock import timestamp
from engine.store.events import actor, append_event, log_bytes, search_events
from engine.store.files import atomic_write, fsync_folder, read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import TITLES, Workspace

_ALERTS_BYTES = 1 << 18  # how far back one looks for the same alert
_ABANDONED_S = 3600.0  # an admission writes into releases/ without the lock `slots`: leave young files alone


class Intent(BaseModel):
    """What the journal says: enough to finish or undo the change without its author."""

    model_config = ConfigDict(extra="forbid")

    transaction: str
    verb: str
    slot: str
    previous: str | None  # the release that the slot held
    target: str
    before: str | None  # the pointer file's text, to put back; None: there was none
    backup: str | None
    actor: str
    at: str
    event_kind: str
    subject: str
    detail: dict[str, Any]
    log_bytes: int = 0  # how long the event log was: this change's event lies behind


@dataclass(frozen=True)
class Switched:
    """A finished change of a slot: release ids, the backup's name, the event; `live`: a server took it over."""

    transaction: str
    slot: str
    previous: str | None
    release: str
    backup: str | None
    live: bool
    event: dict[str, Any]


@contextlib.contextmanager
def slots_lock(workspace: Workspace, purpose: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock `slots`, with whatever a crash left finished or undone first.

    Raises:
        Busy: another process holds it (with `wait` this waits instead).
    """
    with hold(workspace.lock("slots"), purpose, wait=wait):
        recover(workspace)
        yield


def switch(
    workspace: Workspace,
    slot: str,
    release: Release,
    *,
    verb: str,
    backup_of: Release | None,
    detail: dict[str, Any],
    event_kind: str,
    subject: str,
    port: int | None = None,
) -> Switched:
    """Point `slot` at `release` as one transaction. Call it inside `slots_lock`.

    Args:
        release: verified by the caller (`read_release(..., expect=...)`).
        backup_of: the verified release to back up first, None where there is nothing to keep.
        detail: more facts for the event, which also gets transaction, slot, from, to and backup_made.
        port: the slot's port, for the backup's name; needed with `backup_of`.

    Raises:
        Failed: a step failed; the slot holds what it held, and the backup made is gone again.
    """
    before = _pointer_text(workspace, slot)
    if backup_of is not None and port is None:
        raise ValueError("a backup needs the slot's port for its name")
    intent = Intent(
        transaction=secrets.token_hex(8),
        verb=verb,
        slot=slot,
        previous=_release_of(before),
        target=release.id,
        before=before,
        backup=free_name(workspace, port) if backup_of is not None and port is not None else None,
        actor=actor(),
        at=timestamp(),
        event_kind=event_kind,
        subject=subject,
        detail=detail,
        log_bytes=log_bytes(workspace),
    )
    try:
        write_json(workspace.journal, intent.model_dump(mode="json"))
        if backup_of is not None and intent.backup:
            write_backup(workspace, intent.backup, backup_of)
        control.prepare(workspace, slot, release.id)
        write_pointer(workspace, slot, release, intent.transaction)
        live = control.follow(workspace, slot)
        check_live(workspace, slot, release.id)
        event = _finish(workspace, intent)
    except BaseException as error:
        mend = "free disk space or mend the rights of the workspace, then try again"
        try:
            _undo(workspace, intent, _reason(error))
        except OSError as second:
            reason = second.strerror or str(second)
            said = f"{verb} stopped and could not be undone yet ({reason}); the next command does it"
            raise Failed(said, mend, kind="disk") from error
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            said = f"{verb} stopped ({reason}); {TITLES[slot]} holds what it held"
            raise Failed(said, mend, kind="disk") from error
        raise
    return Switched(intent.transaction, slot, intent.previous, release.id, intent.backup, live, event)


def recover(workspace: Workspace) -> str | None:
    """Finish or undo what a crash left, sweep scratch files; "finished", "undone" or None. Idempotent.

    Call it with the lock `slots` held.
    """
    intent = _read_journal(workspace)
    outcome = None
    if intent is not None:
        if _points_at(workspace, intent):
            outcome = _carry_on(workspace, intent)
        else:
            _undo(workspace, intent, "its process died")
            outcome = "undone"
    _sweep(workspace)
    return outcome


def settle(workspace: Workspace, purpose: str) -> None:
    """Finish or undo what a crash left; a command that changes a slot just now does that itself.

    For a command that may find nothing to change, and so would never take the lock.
    """
    if pending(workspace) is not None:
        with contextlib.suppress(Busy), slots_lock(workspace, purpose):
            return


def pending(workspace: Workspace) -> Intent | None:
    """The change that a crash left in the journal, or that another process is making; None normally."""
    return _read_journal(workspace)


def taken_down(workspace: Workspace) -> dict[str, str]:
    """Releases that a rollback took off AS-IS, with the time; the gate stays closed to them until a new
    comparison."""
    found = read_json(workspace.state / "taken_down.json")
    return {str(release): str(at) for release, at in found.items()} if isinstance(found, dict) else {}


def _carry_on(workspace: Workspace, intent: Intent) -> str:
    try:
        # What AS-IS would run must still be what the transaction verified.
        read_release(release_path(workspace, intent.target), expect=intent.target)
        control.follow(workspace, intent.slot)
        check_live(workspace, intent.slot, intent.target)
    except Failed as error:
        if _logged(workspace, intent) is None:
            _undo(workspace, intent, f"its process died, and then {error.message}")
            return "undone"
    _finish(workspace, intent, recovered=True)
    return "finished"


def _finish(workspace: Workspace, intent: Intent, *, recovered: bool = False) -> dict[str, Any]:
    event = _logged(workspace, intent) if recovered else None
    if event is None:
        if intent.backup and intent.previous:
            remember(workspace, intent.backup, intent.previous)
        if intent.event_kind == "rolled_back" and intent.previous:
            marks = {**taken_down(workspace), intent.previous: intent.at}
            write_json(workspace.state / "taken_down.json", marks)
        detail: dict[str, Any] = {
            "transaction": intent.transaction,
            "slot": intent.slot,
            "from": intent.previous,
            "to": intent.target,
            "backup": intent.backup,
            "backup_made": intent.backup,
            **intent.detail,
        }
        if recovered:
            detail |= {"recovered": True, "begun_by": intent.actor, "begun_at": intent.at}
        try:
            event = append_event(workspace, intent.event_kind, intent.subject, detail)
        except OSError:
            event = _logged(workspace, intent)  # a full disk may fail the fsync after the write
            if event is None:
                raise
    _drop_journal(workspace)
    return event


def _undo(workspace: Workspace, intent: Intent, reason: str) -> None:
    """Put back what the intent changed. Each part may have been done already, by a crash or another undo."""
    if _logged(workspace, intent) is not None:
        _drop_journal(workspace)  # it was done and recorded: an interrupt came after the last step
        return
    if _points_at(workspace, intent):
        path = pointer_path(workspace, intent.slot)
        if intent.before is None:
            path.unlink()
            fsync_folder(path.parent)
        else:
            atomic_write(path, intent.before)
        with contextlib.suppress(Failed):  # the server follows the pointer file by itself, too
            control.follow(workspace, intent.slot)
    if intent.backup:
        (workspace.backups / intent.backup).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a full disk has undone it as well: putting back comes first
        _record_undone(workspace, intent, reason)
    _drop_journal(workspace)


def _record_undone(workspace: Workspace, intent: Intent, reason: str) -> None:
    """One alert for a change that did not come about; the same one again and again is said once."""
    for event in search_events(workspace, '"slot"', log_bytes(workspace) - _ALERTS_BYTES):
        detail = event["detail"]
        if detail.get("slot") == intent.slot:
            if (detail.get("target"), detail.get("reason")) == (intent.target, reason):
                return
            break
    append_event(
        workspace,
        "alert",
        TITLES[intent.slot],
        {
            "severity": "warning",
            "verb": intent.verb,
            "slot": intent.slot,
            "undone": intent.transaction,
            "target": intent.target,
            "reason": reason,
            "begun_by": intent.actor,
            "begun_at": intent.at,
        },
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, Failed):
        return error.message
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted"
    return f"{type(error).__name__}: {error}"


def _drop_journal(workspace: Workspace) -> None:
    workspace.journal.unlink(missing_ok=True)
    if workspace.journal.parent.is_dir():
        fsync_folder(workspace.journal.parent)


def _read_journal(workspace: Workspace) -> Intent | None:
    found = read_json(workspace.journal)
    if found is None:
        return None
    try:
        return Intent.model_validate(found)
    except ValidationError:
        raise Failed(
            f"the journal {workspace.journal} is not one of this version",
            "finish the change with the version that began it, or move the file away",
            kind="damaged",
        ) from None


def _pointer_text(workspace: Workspace, slot: str) -> str | None:
    try:
        return pointer_path(workspace, slot).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _release_of(text: str | None) -> str | None:
    try:
        return Pointer.model_validate_json(text).release if text else None
    except ValidationError:
        return None


def _points_at(workspace: Workspace, intent: Intent) -> bool:
    text = _pointer_text(workspace, intent.slot)
    try:
        return bool(text) and Pointer.model_validate_json(text or "").transaction == intent.transaction
    except ValidationError:
        return False


def _logged(workspace: Workspace, intent: Intent) -> dict[str, Any] | None:
    """This change's event, or None; only what was logged since it began is read."""
    found = search_events(workspace, intent.transaction, intent.log_bytes)
    return next((event for event in found if event["detail"].get("transaction") == intent.transaction), None)


def _sweep(workspace: Workspace) -> None:
    """Remove scratch files of writers that died: of what is written under our lock alone at once, others when old."""
    for folder, pattern in (
        (workspace.backups, ".*.part"),
        (workspace.slots, ".asis.json.*.part"),
        (workspace.slots, ".tobe.json.*.part"),
        (workspace.slots, ".journal.json.*.part"),
        (workspace.state, ".backups.json.*.part"),
        (workspace.state, ".taken_down.json.*.part"),
    ):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    for path in workspace.releases.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()
