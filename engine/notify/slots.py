"""Somebody notices when a slot cannot serve what it holds: the process that a person or the boot started hears of
each change of its slots, and tells of trouble once, and once of its end. Of a server that is gone itself `sync` tells.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from engine.config import Settings
from engine.errors import UnderstudyError
from engine.notify.alerts import clear_alert, is_told, raise_alert
from engine.release.control import slot_stats
from engine.store.events import read_events
from engine.store.locks import hold
from engine.store.workspace import SLOTS, TITLES, Workspace

_LOG = logging.getLogger("understudy.notify")
_FIX = "see why: python -m engine doctor; a good release goes back with: python -m engine rollback"
_NOTHING = "answers nothing"
_RESTART_S = 3.0  # a service manager brings a server back in this time
_NEWEST = 2000  # so many events are searched for a server's start


def tell_slot(workspace: Workspace, settings: Settings, state: dict[str, Any]) -> None:
    """One message when a slot gets into trouble and one when it is out of it.

    Args:
        state: of one slot, as `serve` announces it: `slot`, `port`, `release`, `problem`. The slot's server has
            written the event of the trouble.
    """
    slot, problem = state["slot"], state["problem"]
    title = f"{TITLES[slot]} ({state['port']})"
    with hold(workspace.lock(f"told-{slot}"), "tell of a slot", wait=True):
        if problem is None:
            clear_alert(workspace, settings, slot, f"{title} is well again")
            return
        goes_on = f"serves {state['release'][:8]} still" if state["release"] else _NOTHING
        subject = f"{title} {goes_on}"
        raise_alert(workspace, settings, slot, subject, subject, problem, _FIX, recorded=True)


def check_served(workspace: Workspace, settings: Settings) -> list[str]:
    """One message for each slot whose server is gone though nobody stopped it; returns those slots.

    The server that comes back tells the end of it.
    """
    gone = {
        slot: f"{TITLES[slot]} ({settings.port(slot)}) {_NOTHING}" for slot in SLOTS if _has_died(workspace, slot)
    }
    if not all(is_told(workspace, slot, subject) for slot, subject in gone.items()):
        time.sleep(_RESTART_S)
        gone = {slot: subject for slot, subject in gone.items() if _has_died(workspace, slot)}
    for slot, subject in gone.items():
        fix = f"start it: python -m engine serve {slot}; with `service install` the boot keeps it running"
        with hold(workspace.lock(f"told-{slot}"), "tell of a slot", wait=True):
            raise_alert(
                workspace, settings, slot, subject, subject, "its server is gone, and nobody stopped it", fix
            )
    return list(gone)


def _has_died(workspace: Workspace, slot: str) -> bool:
    if slot_stats(workspace, slot) is not None:
        return False
    for event in reversed(read_events(workspace, _NEWEST)):
        if event["subject"] == slot and event["kind"] in ("started", "stopped"):
            return event["kind"] == "started" or bool(event["detail"].get("orphaned"))
    return False


@contextlib.contextmanager
def telling_of_slots(
    workspace: Workspace, settings: Settings, announce: Callable[[dict[str, Any]], None]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """`announce`, and whoever reads messages is told too: by a thread, for no request waits for a message."""
    states: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def run() -> None:
        while (state := states.get()) is not None:
            try:
                tell_slot(workspace, settings, state)
            except (UnderstudyError, OSError) as error:
                _LOG.warning("the state of %s was not told: %s", state["slot"], error)

    def both(state: dict[str, Any]) -> None:
        states.put(state)
        announce(state)

    threading.Thread(target=run, name="slots", daemon=True).start()
    try:
        yield both
    finally:
        states.put(None)
