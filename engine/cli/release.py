"""`deploy`, `promote`, `rollback`, `hold`, `unhold`, `reject`: what changes a slot, or keeps it from changing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engine.checkpoints.naming import folder_cycle
from engine.cli.verb import Session, Verb, table
from engine.compare.gate import gate
from engine.errors import UsageError
from engine.notify import messages, notify
from engine.release import deploy as road
from engine.release import hold as marks
from engine.release import promote as room
from engine.release.admit import Rejected
from engine.release.bundle import Release
from engine.release.deploy import Deployed
from engine.release.prune import prune_if_asked
from engine.release.slots import read_pointer
from engine.store.clock import timestamp


@click.command(cls=Verb, words=("PATH", 1, 1))
@click.option("--new-classes", is_flag=True, help="Admit other classes than AS-IS has; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the release and the audit log.")
@click.option("--wait", is_flag=True, help="Wait for a comparison, or another command that holds the slots.")
@click.option("--format", "form", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True,
              help="int8: the INT8 build of it, calibrated and judged on --data.")  # fmt: skip
@click.option("--data", metavar="DIR", help="Labelled data for --format int8 (default: ab.data).")
def deploy(
    session: Session,
    words: list[str],
    new_classes: bool,
    reason: str | None,
    wait: bool,
    form: str,
    data: str | None,
) -> None:
    """Check a checkpoint file and give it to TO-BE, without looking at the source."""
    started = time.monotonic()
    reason = (reason or "").strip() or None
    if new_classes and reason is None:
        raise UsageError("'--new-classes' needs a reason", 'add --reason "why other classes are meant"')
    path = Path(words[0]).expanduser().absolute()
    try:
        done = road.deploy(
            session.workspace,
            session.settings,
            path,
            name=path.name,
            cycle=folder_cycle(path.parent.name),
            new_classes_reason=reason if new_classes else None,
            wait=wait,
            build=_int8_build(session, data) if form == "int8" else None,
        )
    except Rejected as error:
        if error.news:
            text = messages.alert_message(f"checkpoint {path} was refused", error.message, fix=error.hint)
            notify(session.workspace, session.settings, "alert", text)
        raise
    origin = done.release.manifest.checkpoint
    result = {
        "changed": done.changed,
        "candidate": {
            "path": str(path),
            "cycle": origin.cycle,
            "md5": origin.md5,
            "sha256": origin.sha256,
            "bytes": origin.bytes,
            "modified_at": timestamp(path.stat().st_mtime),
        },
        "deployed": done.changed,
        "release": done.release.id,
        "skipped": [],
        "seconds_s": round(time.monotonic() - started, 3),
        "accuracy": origin.accuracy,
        "from": done.previous,
        "live": done.live,
        "notes": done.notes,
    }
    if done.changed:
        notify(session.workspace, session.settings, "deployed", _deployed_message(session, path, done))
        session.tell_registry()
    session.emit(result, lambda value: _deployed(value, session.settings.port("tobe")))


def _int8_build(session: Session, data: str | None) -> Callable[[Release], Release]:
    def build(release: Release) -> Release:
        from engine.export.release import int8_release

        return int8_release(session.workspace, session.settings, release, data, session.say)

    return build


@click.command(cls=Verb)
@click.option(
    "--force", is_flag=True, help="Pass a closed gate; needs --reason. Checks of files are never skipped."
)
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit log.")
@click.option("--expect", metavar="RELEASE", help="Only if TO-BE holds this release (8 digits or more).")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would happen, change nothing.")
@click.option("--wait", is_flag=True, help="Wait for another command that holds the slots.")
def promote(
    session: Session, force: bool, reason: str | None, expect: str | None, dry_run: bool, wait: bool
) -> None:
    """Give AS-IS what TO-BE holds, behind the gate, with a backup of what it replaces."""
    result = room.promote(
        session.workspace,
        session.settings,
        gate,
        force=force,
        reason=reason,
        expect=expect,
        dry_run=dry_run,
        wait=wait,
    )
    if result["promoted"]:
        result["pruned"] = prune_if_asked(session.workspace, session.settings)
        text = messages.promoted_message(result, port=session.settings.port("asis"))
        notify(session.workspace, session.settings, "promoted", text)
        session.tell_registry()
    session.emit(result, _promoted)


@click.command(cls=Verb, words=("BACKUP", 0, 1))
@click.option("--dry-run", is_flag=True, help="Check the backup, say what would happen, change nothing.")
@click.option("--wait", is_flag=True, help="Wait for another command that holds the slots.")
def rollback(session: Session, words: list[str], dry_run: bool, wait: bool) -> None:
    """List AS-IS's backups, or put the one named back on AS-IS."""
    if not words:
        listed = room.list_backups(session.workspace, session.settings)
        session.emit({"backups": listed}, lambda value: _backups(value, session.settings.port("asis")))
        return
    result = room.rollback(session.workspace, session.settings, words[0], dry_run=dry_run, wait=wait)
    if result["changed"]:
        text = messages.rolled_back_message(result, port=session.settings.port("asis"))
        notify(session.workspace, session.settings, "rolled_back", text)
        session.tell_registry()
    session.emit(result, _restored)


@click.command(cls=Verb)
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit log.")
def hold(session: Session, reason: str | None) -> None:
    """Keep TO-BE as it is: sync and deploy leave it alone until `unhold`."""
    session.emit(
        marks.hold(session.workspace, reason),
        lambda value: f"TO-BE is held since {_minute(value['at'])}; let it go with: python -m engine unhold",
    )


@click.command(cls=Verb)
def unhold(session: Session) -> None:
    """Let TO-BE change again."""
    session.emit(
        marks.unhold(session.workspace),
        lambda value: "TO-BE may change again" if value["changed"] else "TO-BE was not held",
    )


@click.command(cls=Verb, words=("RELEASE", 1, 1))
@click.option("--undo", is_flag=True, help="Take the rejection back: it may be deployed and promoted again.")
@click.option("--reason", metavar="TEXT", help="Why; kept in the audit log.")
def reject(session: Session, words: list[str], undo: bool, reason: str | None) -> None:
    """Never deploy or promote this release again."""
    if undo:
        session.emit(marks.unreject(session.workspace, words[0], reason), _unrejected)
        return
    result = marks.reject(session.workspace, words[0], reason)
    held_by = [
        slot
        for slot in ("asis", "tobe")
        if (pointer := read_pointer(session.workspace, slot)) and pointer.release == result["rejected"]
    ]
    session.emit({**result, "slots": held_by}, _rejected)


def _deployed_message(session: Session, path: Path, done: Deployed) -> str:
    origin = done.release.manifest.checkpoint
    return messages.deployed_message(
        cycle=origin.cycle,
        name=path.name,
        path=str(path),
        md5=origin.md5,
        release=done.release.id,
        port=session.settings.port("tobe"),
        accuracy=origin.accuracy,
    )


def _deployed(result: dict[str, Any], port: int) -> str:
    if not result["changed"]:
        return f"TO-BE holds this checkpoint already (release {_short(result['release'])}); nothing to do"
    facts = _facts({**result, "cycle": result["candidate"]["cycle"]})
    lines = [f"TO-BE ({port}) went from {_short(result['from'])} to {_short(result['release'])}{facts}"]
    lines += [f"note: {note}" for note in result["notes"]]
    return "\n".join([*lines, "next: compare, run: python -m engine ab"])


def _promoted(result: dict[str, Any]) -> str:
    would = "would go" if result["dry_run"] else "went"
    lines = [f"AS-IS {would} from {_short(result['from'])} to {_short(result['to'])}{_facts(result)}"]
    if result["forced"]:
        lines.append(f"forced: {result['reason']}")
    if result["backup"]:
        lines.append(f"backup: {result['backup']}")
        if not result["dry_run"]:
            lines.append(f"undo:   python -m engine rollback {result['backup']}")
    return "\n".join(lines)


def _restored(result: dict[str, Any]) -> str:
    if result["restored"] == result["from"]:
        return f"AS-IS holds {_short(result['restored'])} already; nothing to do"
    went = "would go" if result["dry_run"] else "went"
    lines = [f"AS-IS {went} back from {_short(result['from'])} to {_short(result['restored'])}{_facts(result)}"]
    if result["backup_made"]:
        lines.append(f"backup: {result['backup_made']}")
        if not result["dry_run"]:
            lines.append(f"undo:   python -m engine rollback {result['backup_made']}")
    if result["note"]:
        lines.append(f"note:   {result['note']}")
    return "\n".join(lines)


def _backups(result: dict[str, Any], port: int) -> str:
    rows = [
        (
            entry["name"],
            _short(entry["release"]),
            "-" if entry["cycle"] is None else entry["cycle"],
            "-" if entry["accuracy"] is None else f"{entry['accuracy']:.2%}",
            _minute(entry["at"]),
            f"{entry['bytes'] / 1e6:.1f} MB",
            "verified" if entry["verified"] else entry["problem"],
        )
        for entry in result["backups"]
    ]
    if not rows:
        return "no backups yet; the first promotion over a model makes one"
    lines = [table(rows, ("backup", "release", "cycle", "accuracy", "made", "size", "state"))]
    former = Counter(entry["port"] for entry in result["backups"] if entry["port"] != port)
    lines += [
        f"{count} made when AS-IS was at port {other}; now it is at {port}" for other, count in former.items()
    ]
    lines.append("put one back: python -m engine rollback BACKUP")
    return "\n".join(lines)


def _rejected(result: dict[str, Any]) -> str:
    lines = [f"release {_short(result['rejected'])} is rejected: it is not deployed or promoted again"]
    if "tobe" in result["slots"]:
        lines.append("TO-BE still answers with it until another candidate is deployed")
    if "asis" in result["slots"]:
        lines.append("AS-IS still holds it; take it down with: python -m engine rollback BACKUP")
    lines.append(f"undo:   python -m engine reject --undo {_short(result['rejected'])}")
    return "\n".join(lines)


def _unrejected(result: dict[str, Any]) -> str:
    if not result["changed"]:
        return "it was not rejected; nothing to do"
    names = ", ".join(map(_short, result["undone"]))
    return (
        f"rejected no more: {names}; the next sync looks at its checkpoint again, or: python -m engine deploy PATH"
    )


def _facts(result: dict[str, Any]) -> str:
    facts = []
    if result.get("cycle") is not None:
        facts.append(f"cycle {result['cycle']}")
    if result.get("accuracy") is not None:
        facts.append(f"accuracy {result['accuracy']:.2%}")
    return f" ({', '.join(facts)})" if facts else ""


def _short(release: str | None) -> str:
    return release[:8] if release else "nothing"


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")
