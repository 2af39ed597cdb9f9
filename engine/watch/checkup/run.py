"""All checks in the order in which a person would make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engine.config import Loaded
from engine.errors import UnderstudyError
from engine.store.workspace import Workspace
from engine.watch.checkup import host, slots, source
from engine.watch.checkup.check import Check


def run_checks(workspace: Workspace, loaded: Loaded) -> Iterator[Check]:
    """Each check as soon as it is made; one that itself fails is a failed check and stops no other."""
    settings = loaded.settings
    groups: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("installed", host.installed),
        ("config", lambda: host.config(loaded)),
        ("workspace", lambda: host.workspace_folder(workspace)),
        ("source", lambda: source.source(workspace, settings)),
        ("slots", lambda: slots.slots(workspace, settings)),
        ("backups", lambda: slots.backups(workspace, settings)),
        ("audit log", lambda: slots.record(workspace)),
        ("schedule", lambda: host.schedule(workspace, settings)),
        ("locks", lambda: host.locks(workspace)),
        ("messages", lambda: host.secrets(settings, loaded)),
        ("sandbox", host.sandbox),
        ("runs", lambda: host.runs(workspace, settings)),
        ("devices", lambda: host.devices(workspace)),
        ("hosts", lambda: host.hosts(settings)),
        ("clock", lambda: host.clock(workspace)),
    ]
    for name, group in groups:
        try:
            yield from group()
        except (UnderstudyError, OSError, ValueError) as error:
            hint = error.hint if isinstance(error, UnderstudyError) else "mend it, then run doctor again"
            yield Check(name, f"cannot be checked: {error}", "fail", hint)
