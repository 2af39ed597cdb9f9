"""`workspace backup|restore|check|migrate`: the whole state of a host, to a file and back."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import click

from engine.cli.verb import Session, Verb
from engine.errors import Busy, Failed, Refused, UsageError, nearest
from engine.release.journal import slots_lock
from engine.release.rebuild import problems, repair
from engine.release.slots import open_slot
from engine.store import archive, schema
from engine.store.events import append_event, verify_events
from engine.store.files import sha256_file
from engine.store.locks import hold, holder
from engine.store.workspace import SLOTS, TITLES, Workspace
from engine.watch.checkup import slots as checks

_ACTIONS = ("backup", "restore", "check", "migrate")
_LOCKS = ("sync", "label", "bake", "compare", "admit", "marks")  # in the order in which commands take them


@click.command(cls=Verb, words=("backup FILE|restore FILE|check|migrate", 1, 2))
@click.option("--runs", is_flag=True, help="backup: the training runs too, which are large.")
@click.option("--repair", "mend", is_flag=True, help="check: put damaged files aside and make them again.")
@click.option("--force", is_flag=True, help="restore: over a workspace in use; needs --reason. It is kept aside.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit log.")
@click.option("--wait", is_flag=True, help="Wait for other commands instead of failing.")
def workspace(
    session: Session, words: list[str], runs: bool, mend: bool, force: bool, reason: str | None, wait: bool
) -> int:
    """Back up, restore, check or migrate this host's state."""
    action, rest = words[0], words[1:]
    if action not in _ACTIONS:
        raise UsageError(f"unknown action '{action}'", nearest(action, _ACTIONS))
    if (action in ("backup", "restore")) != bool(rest):
        raise UsageError(f"'workspace {action}' {'needs a FILE' if not rest else 'takes no FILE'}", "see --help")
    if action == "backup":
        return _backup(session, Path(rest[0]).expanduser(), runs, wait)
    if action == "restore":
        return _restore(session, Path(rest[0]).expanduser(), force, (reason or "").strip() or None, wait)
    if action == "migrate":
        done = schema.migrate(session.workspace) if session.workspace.root.is_dir() else []
        result = {"version": schema.VERSION, "changes": done}
        session.emit(result, "\n".join([*done, f"the workspace is of version {schema.VERSION}"]))
        return 0
    return _check(session, mend)


def _backup(session: Session, target: Path, runs: bool, wait: bool) -> int:
    room = session.workspace
    if not archive.is_used(room):
        raise UsageError(f"there is nothing to back up in {room.root}", "check --workspace", kind="empty")
    if target.exists():
        raise UsageError(f"{target} exists", "choose another name; a backup overwrites nothing")
    if target.absolute().is_relative_to(room.root.absolute()):
        raise UsageError(f"{target} is inside the workspace", "choose a place outside, best on another disk")
    with _still(room, "workspace backup", wait):
        manifest = archive.write_archive(room, target, runs=runs)
    result = {
        "backup": str(target.absolute()),
        "files": len(manifest["files"]),
        "bytes": target.stat().st_size,
        "sha256": sha256_file(target),
        "schema": manifest["schema"],
    }
    session.emit(result, lambda v: f"{v['files']} files, {v['bytes'] / 1e6:.1f} MB, verified: {v['backup']}")
    return 0


def _restore(session: Session, source: Path, force: bool, reason: str | None, wait: bool) -> int:
    room = session.workspace
    if force and reason is None:
        raise UsageError("'--force' needs a reason", 'add --reason "why the present state is given up"')
    manifest = archive.read_manifest(source)
    used = archive.is_used(room)
    if used and not force:
        raise Refused(
            f"the workspace {room.root} is in use", "restore into another, or give --force --reason TEXT"
        )
    for slot in SLOTS:
        if who := holder(room.lock(f"serve-{slot}")):
            raise Busy(f"{TITLES[slot]} is being served (pid {who.get('pid')})", "stop its server first")
    with contextlib.ExitStack() as stack:
        if used:
            stack.enter_context(_still(room, "workspace restore", wait))
        scratch = archive.unpack(source, room)
        try:
            _verify(Workspace(scratch))
            former = archive.take_place(scratch, room)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    schema.ensure(room)
    detail = {"backup": source.name, "of": manifest["at"], "from_host": manifest["host"], "reason": reason}
    append_event(room, "restored", str(room.root), {**detail, "replaced": str(former) if former else None})
    result = {"restored": str(room.root), "files": len(manifest["files"]), "of": manifest["at"],
              "replaced": str(former) if former else None}  # fmt: skip
    kept = f"; the former one is kept in {former}" if former else ""
    session.emit(result, f"{result['files']} files of {manifest['at'][:16]} restored and verified{kept}")
    return 0


def _check(session: Session, mend: bool) -> int:
    room = session.workspace
    repaired = repair(room) if mend else []
    found = [
        {"name": name, "ok": False, "detail": f"state/{name} {what}"} for name, what in problems(room).items()
    ]
    for group in (checks.releases(room), checks.backups(room, session.settings), checks.record(room)):
        found += [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in group]
    result = {"ok": all(check["ok"] for check in found), "version": schema.version(room), "checks": found,
              "repaired": repaired}  # fmt: skip
    lines = [f"{'ok  ' if check['ok'] else 'FAIL'}  {check['name']}: {check['detail']}" for check in found]
    hint = [] if result["ok"] or mend else ["try: python -m engine workspace check --repair"]
    session.emit(result, "\n".join([*repaired, *lines, *hint]))
    return 0 if result["ok"] else 1


def _verify(room: Workspace) -> None:
    """What was unpacked must be a state that a server can start from.

    Raises:
        Failed: a slot's release is not there, or the log's chain is broken.
    """
    for slot in SLOTS:
        open_slot(room, slot)
    if broken := verify_events(room):
        raise Failed(f"the backup's audit log is not whole: {broken}", "take another backup", kind="chain_broken")


@contextlib.contextmanager
def _still(room: Workspace, purpose: str, wait: bool) -> Iterator[None]:
    """No command changes anything meanwhile, and what a crash left is finished first."""
    with contextlib.ExitStack() as stack:
        for name in _LOCKS:
            stack.enter_context(hold(room.lock(name), purpose, wait=wait))
        stack.enter_context(slots_lock(room, purpose, wait))
        yield
