"""The slots: ports, pointers, the bytes of releases and backups, the journal and the audit log."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from engine.config import Settings
from engine.errors import Failed
from engine.release.backups import find_backups
from engine.release.control import slot_stats
from engine.release.slots import open_slot, read_pointer
from engine.store.events import read_events, verify_events
from engine.store.workspace import SLOTS, TITLES, Workspace
from engine.watch.checkup.check import Check
from engine.watch.snapshots import read_locks, read_unfinished


def slots(workspace: Workspace, settings: Settings) -> Iterator[Check]:
    for slot in SLOTS:
        yield from _port(workspace, settings, slot)
        yield from _release(workspace, slot)


def releases(workspace: Workspace) -> Iterator[Check]:
    for slot in SLOTS:
        yield from _release(workspace, slot)


def _port(workspace: Workspace, settings: Settings, slot: str) -> Iterator[Check]:
    title, port = TITLES[slot], settings.port(slot)
    stats = slot_stats(workspace, slot)
    if stats is not None:
        if stats.get("port") != port:
            text = f"{title}'s server is at {stats.get('port')}, the config says {port}"
            yield Check(f"{title} port", text, "fail", "stop the server and start it again")
        elif stats.get("problem"):
            yield Check(f"{title} port", f"{port}: {stats['problem']}", "fail", "see its log")
        else:
            yield Check(f"{title} port", f"{port} is ours (pid {stats.get('pid')}, {stats.get('state')})")
        return
    taken = _taken(settings.servers.host, port)
    if taken:
        fix = f"stop it, or set servers.{slot}.port"
        yield Check(f"{title} port", f"{port} is held by {taken}", "fail", fix)
        return
    wanted = _holds(workspace, slot)
    text = f"{port} is free; no server runs" + (f", though {title} holds a release" if wanted else "")
    yield Check(
        f"{title} port", text, "warn" if wanted else "ok", f"python -m engine serve {slot}" if wanted else ""
    )


def _taken(host: str, port: int) -> str | None:
    """Who holds the port, or None when it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return _owner(port)
            return f"nobody, but it cannot be taken ({error.strerror})"
    return None


def _owner(port: int) -> str:
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # without rights the owner of another account's socket cannot be seen
    return "another process"


def _holds(workspace: Workspace, slot: str) -> bool:
    try:
        return read_pointer(workspace, slot) is not None
    except Failed:
        return True


def _release(workspace: Workspace, slot: str) -> Iterator[Check]:
    title = TITLES[slot]
    try:
        release = open_slot(workspace, slot)
    except Failed as error:
        yield Check(f"{title} release", error.message, "fail", error.hint)
        return
    if release is None:
        yield Check(f"{title} release", "empty")
    else:
        yield Check(f"{title} release", f"{release.id[:8]}, its content has the right hash")


def backups(workspace: Workspace, settings: Settings) -> Iterator[Check]:
    found = find_backups(workspace, settings.port("asis"))
    broken = [backup for backup in found if not backup.verified]
    for backup in broken:
        yield Check("backup", f"{backup.name} {backup.problem}", "fail", "delete it; it cannot be rolled back to")
    good = len(found) - len(broken)
    if found:
        yield Check("backups", f"{good} verified, newest {found[0].name}" if good else "none that is good")
    else:
        yield Check("backups", "none yet", "ok")


def record(workspace: Workspace) -> Iterator[Check]:
    try:
        broken = verify_events(workspace)
        count = len(read_events(workspace))
    except Failed as error:
        yield Check("audit log", error.message, "fail", "compare it with a copy; the slots do not depend on it")
    else:
        fix = "compare with the head hash in the last promotion message"
        if broken:
            yield Check("audit log", broken, "fail", fix)
        else:
            yield Check("audit log", f"{count} events, the chain holds" if count else "no events yet")
    unfinished = read_unfinished(workspace, read_locks(workspace))
    if unfinished:
        yield Check(
            "journal", f"a {unfinished} was cut short", "fail", "python -m engine sync finishes or undoes it"
        )
    else:
        yield Check("journal", "no change of a slot is unfinished")
