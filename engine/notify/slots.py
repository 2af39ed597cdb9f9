"""Somebody notices when a slot cannot serve what it holds: the process that a person or the boot started hears of
each change of its slots, and tells of trouble once, and once of its end."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from engine.config import Settings
from engine.errors import UnderstudyError
from engine.notify.alerts import clear_alert, raise_alert
from engine.store.locks import hold
from engine.store.workspace import TITLES, Workspace

_LOG = logging.getLogger("understudy.notify")
_FIX = "see why: python -m engine doctor; a good release goes back with: python -m engine rollback"


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
        goes_on = f"serves {state['release'][:8]} still" if state["release"] else "answers nothing"
        subject = f"{title} {goes_on}"
        raise_alert(workspace, settings, slot, subject, subject, problem, _FIX, recorded=True)


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
