"""TO-BE → AS-IS behind the gate, and back to a backup: both verified, journalled and locked.

The gate decides on evidence; `force` overrides the gate alone, with a reason, and never a hash, a
rejection or the journal.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from engine.config import Settings
from engine.errors import Busy, Failed, Refused, UsageError
from engine.release import control
from engine.release.backups import Backup, find_backup, find_backups, free_name
from engine.release.bundle import Release, read_release, release_path
from engine.release.hold import ANOTHER, rejection
from engine.release.journal import pending, slots_lock, switch
from engine.release.slots import open_slot, read_pointer
from engine.store.files import copy_verified
from engine.store.locks import hold, holder
from engine.store.workspace import Workspace

_ID = re.compile(r"[0-9a-f]{8,64}")
Gate = Callable[[Workspace, Settings], dict[str, Any]]


def promote(
    workspace: Workspace,
    settings: Settings,
    gate: Gate,
    *,
    force: bool = False,
    reason: str | None = None,
    expect: str | None = None,
    dry_run: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Give AS-IS the release that TO-BE holds; TO-BE keeps it.

    Args:
        gate: weighs the evidence for exactly the two releases that the slots hold; asked under the lock
            (`engine.compare.gate.gate`). Its `open`, `reason` and `ab` are used.
        force: pass a closed gate; needs `reason`, which the log keeps.
        expect: the release that the caller saw in TO-BE, its id or at least 8 digits of it; another is refused.
        dry_run: check everything, change nothing; the result has `promoted` false and `dry_run` true.
        wait: wait for another command that changes a slot, or for a comparison, instead of Busy.

    Returns:
        The verb's object: `promoted, from, to, backup, forced, ab, reason` and more.

    Raises:
        UsageError: `force` without a reason, or an `expect` that is no id.
        Refused: the gate is closed, TO-BE is empty or not what is expected; its payload is the verb's object.
        Busy: a slot is being changed, or a comparison runs.
        Failed: a release is damaged, or the server does not load it; AS-IS holds what it held.
    """
    reason = (reason or "").strip() or None
    if force and reason is None:
        raise UsageError("'--force' needs a reason", 'add --reason "why the evidence is not waited for"')
    if expect is not None and not _ID.fullmatch(expect):
        raise UsageError(f"'{expect}' is no release's id", "give all 64 hex digits of it, or at least the first 8")
    ask: dict[str, Any] = {"force": force, "reason": reason, "expect": expect}
    if dry_run:
        return _promote(workspace, settings, gate, **ask, dry_run=True)
    with no_comparison(workspace, "promote", wait), slots_lock(workspace, "promote", wait):
        return _promote(workspace, settings, gate, **ask, dry_run=False)


def _promote(
    workspace: Workspace,
    settings: Settings,
    gate: Gate,
    *,
    force: bool,
    reason: str | None,
    expect: str | None,
    dry_run: bool,
) -> dict[str, Any]:
    candidate, present = read_pointer(workspace, "tobe"), read_pointer(workspace, "asis")
    result: dict[str, Any] = {
        "promoted": False,
        "from": present.release if present else None,
        "to": candidate.release if candidate else None,
        "backup": None,
        "forced": force,
        "ab": None,
        "reason": reason,
        "dry_run": dry_run,
    }

    def refuse(why: str, hint: str) -> Refused:
        return Refused(why, hint, payload={**result, "reason": f"{why}: {hint}"})

    if candidate is None:
        raise refuse("TO-BE is empty", "deploy a candidate: python -m engine sync")
    if expect is not None and not candidate.release.startswith(expect):
        raise refuse(f"TO-BE holds {candidate.release[:8]}, not {expect[:8]}", "look at the new candidate first")
    if why := rejection(workspace, release=candidate.release, sha256=candidate.checkpoint.sha256):
        raise refuse(why, f"a rejection is not forced; {ANOTHER}")
    if present and present.release == candidate.release:
        raise refuse("both slots hold the same release", "there is nothing to promote")
    evidence = _evidence(workspace, settings, gate)
    result |= {"ab": (evidence["ab"] or {}).get("id"), "gate": evidence}
    if not force:
        if present is None:
            raise refuse("AS-IS is empty, so there is nothing to compare with", 'add --force --reason "..."')
        if not evidence["open"]:
            raise refuse(str(evidence["reason"]), 'to go without it, add --force --reason "..."')

    target = open_slot(workspace, "tobe")
    assert target is not None
    try:
        replaced = open_slot(workspace, "asis")
    except Failed as error:
        raise Failed(
            f"AS-IS cannot be backed up ({error.message})",
            "put a good backup on AS-IS first: python -m engine rollback",
            kind=error.kind,
        ) from None
    port = settings.port("asis")
    said = reason if force else str(evidence["reason"])
    result |= {"reason": said, "cycle": target.manifest.checkpoint.cycle}
    result |= {"accuracy": target.manifest.checkpoint.accuracy}
    if dry_run:
        return {**result, "backup": free_name(workspace, port) if replaced else None}
    done = switch(
        workspace,
        "asis",
        target,
        verb="promote",
        backup_of=replaced,
        detail={"forced": force, "reason": said, "ab": result["ab"], "gate_open": bool(evidence["open"])},
        event_kind="promoted",
        subject=target.id,
        port=port,
    )
    return {
        **result,
        "promoted": True,
        "backup": done.backup,
        "live": done.live,
        "transaction": done.transaction,
        "head": done.event["hash"],
    }


def rollback(
    workspace: Workspace,
    settings: Settings,
    backup: str,
    *,
    expect: str | None = None,
    reason: str | None = None,
    dry_run: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Put a backup back on AS-IS, with a backup of what it replaces.

    A comparison under way does not hold it up: taking a bad model down is urgent.

    Args:
        expect: the release that must be on AS-IS still, for a caller that decided on what it saw before.
        reason: why, for the log.
        dry_run: check the backup, change nothing; the result has `changed` false and `dry_run` true.

    Returns:
        The verb's object: `restored, from, backup, backup_made` and more; `changed` is False when
        AS-IS holds that release already.

    Raises:
        UsageError: not the name of one of AS-IS's backups.
        Refused: AS-IS holds another release than `expect`.
        Failed: the backup is damaged, or the server does not load it; AS-IS holds what it held.
        Busy: another command changes a slot.
    """
    with contextlib.nullcontext() if dry_run else slots_lock(workspace, "rollback", wait):
        found = find_backup(workspace, settings.port("asis"), backup)
        assert found.release is not None
        try:
            pointer = read_pointer(workspace, "asis")
        except Failed:  # a damaged pointer is one of the things a rollback is for
            pointer = None
        facts = found.as_json()
        result: dict[str, Any] = {
            "restored": found.release,
            "from": pointer.release if pointer else None,
            "backup": backup,
            "backup_made": None,
            "changed": False,
            "dry_run": dry_run,
            "cycle": facts["cycle"],
            "accuracy": facts["accuracy"],
            "note": rejection(workspace, release=found.release) or _moved(found, settings),
        }
        if dry_run:
            differs = pointer is not None and pointer.release != found.release
            return {**result, "backup_made": free_name(workspace, settings.port("asis")) if differs else None}
        target, healed = _restore_file(workspace, found)
        if expect is not None and (pointer is None or pointer.release != expect):
            raise Refused("AS-IS holds another release by now", "look at it first", payload=result)
        if pointer and pointer.release == target.id:
            if healed:
                with contextlib.suppress(Failed):  # the pointer is right; the server tries again by itself
                    control.follow(workspace, "asis")
            return result
        try:
            replaced = open_slot(workspace, "asis")
        except Failed as error:
            replaced = None
            result["note"] = f"what AS-IS held could not be backed up ({error.message})"
        done = switch(
            workspace,
            "asis",
            target,
            verb="rollback",
            backup_of=replaced,
            detail={"backup": found.name, "note": result["note"], "reason": reason},
            event_kind="rolled_back",
            subject=target.id,
            port=settings.port("asis"),
        )
        return {
            **result,
            "backup_made": done.backup,
            "changed": True,
            "live": done.live,
            "transaction": done.transaction,
            "head": done.event["hash"],
        }


def list_backups(workspace: Workspace, settings: Settings, *, verify: bool = True) -> list[dict[str, Any]]:
    """AS-IS's backups, newest first: `{name, port, release, cycle, accuracy, at, bytes, verified, problem}`, also those that
    were made when it was at another port.

    Args:
        verify: read each file and check its hash; without it `verified` is False throughout.
    """
    unfinished = pending(workspace)
    return [
        backup.as_json()
        for backup in find_backups(workspace, settings.port("asis"), verify=verify)
        if unfinished is None or backup.name != unfinished.backup
    ]


@contextlib.contextmanager
def no_comparison(workspace: Workspace, purpose: str, wait: bool) -> Iterator[None]:
    """Hold the lock `compare`, so that neither slot changes under a comparison.

    Raises:
        Busy: a comparison runs (kind `comparing`), or another command keeps one from starting.
    """
    path = workspace.lock("compare")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(path, purpose, wait=wait))
        except Busy as error:
            who = holder(path) or {}
            if who.get("purpose") in ("promote", "deploy"):
                raise
            raise Busy(
                f"a comparison of both slots is running (since {who.get('since', 'a moment ago')})",
                "wait for its end, or give --wait",
                kind="comparing",
            ) from error
        yield


def _moved(backup: Backup, settings: Settings) -> str | None:
    port = settings.port("asis")
    return None if backup.port == port else f"made when AS-IS was at port {backup.port}, not {port}"


def _evidence(workspace: Workspace, settings: Settings, gate: Gate) -> dict[str, Any]:
    try:
        return gate(workspace, settings)
    except Failed as error:  # damaged evidence closes the gate; it does not take `--force` away
        return {"open": False, "reason": str(error), "ab": None, "evidence": {}}


def _restore_file(workspace: Workspace, backup: Backup) -> tuple[Release, bool]:
    """The backup's release, put back under its name in releases/ where that file is missing or damaged."""
    assert backup.release is not None
    path = release_path(workspace, backup.release)
    with contextlib.suppress(Failed):
        return read_release(path, expect=backup.release), False
    try:
        workspace.releases.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        copy_verified(backup.path, path, backup.release)
    except OSError as error:
        raise Failed(
            f"{backup.name} could not be copied into releases/ ({error.strerror})",
            "free disk space or mend the rights of the workspace, then try again",
            kind="disk",
        ) from error
    return read_release(path, expect=backup.release), True
