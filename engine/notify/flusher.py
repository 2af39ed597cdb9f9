"""Who sends what waits when nothing else would: a short engine process beside whatever runs anyway.

Each engine command looks once when it ends, and a slot's server once a minute. Looking reads a folder; sending,
which may take as long as a dead service lets it, happens in a process of its own that nobody waits for.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from typing import Any

from engine.notify import outbox
from engine.store.workspace import Workspace

_EVERY_S = 60.0
_APART: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.DEVNULL,
    "stderr": subprocess.DEVNULL,
    "start_new_session": True,
}


def flush_beside(workspace: Workspace, command: Sequence[str]) -> bool:
    """Start `command` (`engine notify --flush`) when a message is due; whether it was started."""
    if not outbox.due(workspace):
        return False
    start_apart(command)
    return True


def start_apart(command: Sequence[str]) -> None:
    """Start a process that outlives this one and that nobody waits for."""
    subprocess.Popen(command, **_APART)


def keep_flushing(workspace: Workspace, command: Sequence[str], every_s: float = _EVERY_S) -> threading.Event:
    """Look every `every_s` seconds in a thread until the returned event is set."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(every_s):
            if outbox.due(workspace):
                subprocess.run(command, check=False, **_APART)

    threading.Thread(target=look, name="outbox", daemon=True).start()
    return stop
